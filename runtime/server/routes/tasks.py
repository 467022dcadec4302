"""The routes of the other tasks: classes, words, scores, spans and answers. They have the forms of OpenAI's routes."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from encort.runtime.server.embeddings import as_texts, check_count, run_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import OPENAI, Failure, RequestError
from encort.runtime.server.ranking import score_pairs
from encort.runtime.tasks.zero_shot import TEMPLATE


class ClassifyRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/classify`."""

    model: str | None = None
    input: str | list[str]
    top_k: int | None = None


class ZeroShotRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/classify_zero_shot`: texts, and the labels to choose from, in words."""

    model: str | None = None
    input: str | list[str]
    labels: list[str]
    template: str = TEMPLATE
    multi_label: bool = False


class FillRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/fill`: texts with mask tokens, such as `[MASK]`."""

    model: str | None = None
    input: str | list[str]
    top_k: int = 5


class TagRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/tag`."""

    model: str | None = None
    input: str | list[str]


class AnswerRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/answer`: a question and its context, or several pairs of them."""

    model: str | None = None
    question: str | None = None
    context: str | None = None
    pairs: list[tuple[str, str]] | None = None
    n_best: int = 1


class ScoreRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/score`: one text and one, one and several, or as many as many."""

    model: str | None = None
    text_1: str | list[str]
    text_2: str | list[str]


async def classify(server: Server, body: ClassifyRequest) -> Reply:
    """Return the class of each text; with `top_k` the scores of the best classes too."""
    served = server.models.get(body.model)
    if body.top_k is not None and body.top_k < 1:
        raise RequestError(Failure.INVALID, f"top_k must be at least 1, got {body.top_k}")
    texts = as_texts(body.input, most=server.settings.max_items)
    results = await run_all(served, served.service.tasks.classify(None), texts)
    data = [
        {"label": item.label, "score": item.score}
        | ({} if body.top_k is None else {"scores": _best(item.scores, body.top_k)})
        for item in results.items
    ]
    return _reply(served.name, data, results.tokens)


async def classify_zero_shot(server: Server, body: ZeroShotRequest) -> Reply:
    """Return which label fits each text, and the scores of all labels, the best first."""
    served = server.models.get(body.model)
    texts = as_texts(body.input, most=server.settings.max_items)
    check_count(len(body.labels), most=server.settings.max_items)
    spec = served.service.tasks.classify_zero_shot(
        None, body.labels, template=body.template, multi_label=body.multi_label
    )
    results = await run_all(served, spec, texts)
    data = [
        {"label": item.label, "score": item.score, "scores": _best(item.scores, len(body.labels))}
        for item in results.items
    ]
    return _reply(served.name, data, results.tokens)


async def fill(server: Server, body: FillRequest) -> Reply:
    """Return the words that fit each mask token of each text, the best first."""
    served = server.models.get(body.model)
    texts = as_texts(body.input, most=server.settings.max_items)
    results = await run_all(served, served.service.tasks.fill(None, top_k=body.top_k), texts)
    return _reply(served.name, [{"masks": [asdict(mask) for mask in masks]} for masks in results.items], results.tokens)


async def score(server: Server, body: ScoreRequest) -> Reply:
    """Return the score of each pair from the bundle's regression head."""
    served = server.models.get(body.model)
    most = server.settings.max_items
    first, second = ([text] if isinstance(text, str) else text for text in (body.text_1, body.text_2))
    if not first or not second:
        raise RequestError(Failure.EMPTY, "text_1 or text_2 is empty; send at least one text in each")
    check_count(max(len(first), len(second)), most=most)
    if len(first) not in (1, len(second)):
        raise RequestError(
            Failure.INVALID, f"text_1 has {len(first)} texts and text_2 has {len(second)}; send one, or as many"
        )
    pairs = list(zip(first * len(second) if len(first) == 1 else first, second, strict=True))
    scores, tokens = await score_pairs(served, pairs)
    data = [{"object": "score", "score": value} for value in scores.tolist()]
    return _reply(served.name, data, tokens)


async def tag(server: Server, body: TagRequest) -> Reply:
    """Return the tagged spans of each text. Offsets count code points."""
    served = server.models.get(body.model)
    texts = as_texts(body.input, most=server.settings.max_items)
    results = await run_all(served, served.service.tasks.tag(None), texts)
    return _reply(served.name, [{"spans": [asdict(span) for span in spans]} for spans in results.items], results.tokens)


async def answer(server: Server, body: AnswerRequest) -> Reply:
    """Return the answers to each question, the most probable first; none if its context has none."""
    served = server.models.get(body.model)
    results = await run_all(served, served.service.tasks.answer(None, n_best=body.n_best), _pairs(server, body))
    data = [{"answers": [asdict(one) for one in answers]} for answers in results.items]
    return _reply(served.name, data, results.tokens)


def _pairs(server: Server, body: AnswerRequest) -> list[tuple[str, str]]:
    if body.pairs is not None and body.question is None and body.context is None:
        check_count(len(body.pairs), most=server.settings.max_items)
        if not body.pairs:
            raise RequestError(Failure.EMPTY, "pairs is empty; send at least one")
        return body.pairs
    if body.pairs is None and body.question is not None and body.context is not None:
        return [(body.question, body.context)]
    raise RequestError(Failure.INVALID, "expected question and context, or pairs of them")


def _best(scores: Mapping[str, float], count: int) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda item: -item[1])[:count])


def _reply(name: str, data: list[dict[str, Any]], tokens: int) -> Reply:
    numbered = [{"index": index, **item} for index, item in enumerate(data)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(content={"object": "list", "model": name, "data": numbered, "usage": usage})


ENDPOINTS = [
    Endpoint(paths=(path,), summary=summary, contract=OPENAI, handler=handler, body=body, result=dict[str, Any])
    for path, summary, handler, body in (
        ("/v1/classify", "Classes of texts", classify, ClassifyRequest),
        ("/v1/classify_zero_shot", "Which of any labels fits a text", classify_zero_shot, ZeroShotRequest),
        ("/v1/fill", "Words for mask tokens", fill, FillRequest),
        ("/v1/score", "Scores of pairs of texts", score, ScoreRequest),
        ("/v1/tag", "Tagged spans of texts", tag, TagRequest),
        ("/v1/answer", "Answers to questions from their contexts", answer, AnswerRequest),
    )
]
