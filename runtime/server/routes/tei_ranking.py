"""The routes of text-embeddings-inference for classifiers and cross-encoders."""

from typing import Any

import msgspec
import numpy as np

from encort.runtime.bundle.manifest import Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.server.embeddings import check_count, embed_all, run_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import TEI, Failure, RequestError
from encort.runtime.server.models import ServedModel
from encort.runtime.server.routes.tei import Truncation
from encort.runtime.serving.calls import rows_as_list
from encort.runtime.tasks.classification import sigmoid
from encort.runtime.tasks.similarity import best_first
from encort.runtime.tasks.specs import CLASSIFIERS
from encort.runtime.text.token_batch import Text


class PredictRequest(Truncation, kw_only=True):
    """Body of `/predict`: a text, a pair as a list of two, or a list of lists of one or two."""

    inputs: str | list[str | list[str]]
    raw_scores: bool = False


class RerankRequest(Truncation, kw_only=True):
    """Body of `/rerank`."""

    query: str
    texts: list[str]
    raw_scores: bool = False
    return_text: bool = False


class SimilarityInputs(msgspec.Struct):
    """A sentence, and those that it is compared with."""

    source_sentence: str
    sentences: list[str]


class SimilarityRequest(msgspec.Struct, kw_only=True):
    """Body of `/similarity`."""

    inputs: SimilarityInputs
    parameters: Truncation = msgspec.field(default_factory=Truncation)


async def predict(server: Server, body: PredictRequest) -> Reply:
    """Return all labels with their scores, the highest first: a list, or one per input."""
    served = server.models.get()
    texts, is_batch = _inputs(body.inputs)
    check_count(len(texts), most=server.settings.max_items)
    rows = await _labels(served, texts, body)
    return Reply(content=rows if is_batch else rows[0])


async def rerank(server: Server, body: RerankRequest) -> Reply:
    """Return the texts in the order of their scores for a query."""
    served = server.models.get()
    if not body.query or not body.texts:
        raise RequestError(Failure.EMPTY, "query or texts is empty; send a query and at least one text")
    check_count(len(body.texts), most=server.settings.max_items)
    logits = rows_as_list(served.service.tasks.logits(served.service.tasks.head(None, Task.TEXT_REGRESSION).name))
    pairs = [(body.query, text) for text in body.texts]
    results = await run_all(served, logits, pairs, overflow=body.overflow)
    raw: FloatArray = np.stack(results.items)[:, 0]
    ranked = best_first(raw if body.raw_scores else sigmoid(raw), top_k=None)
    content: list[dict[str, Any]] = [{"index": item.index, "score": item.score} for item in ranked]
    if body.return_text:
        content = [{**item, "text": body.texts[item["index"]]} for item in content]
    return Reply(content=content, headers={"x-compute-tokens": str(results.tokens)})


async def similarity(server: Server, body: SimilarityRequest) -> Reply:
    """Return the cosine of a sentence with every other one."""
    texts = [body.inputs.source_sentence, *body.inputs.sentences]
    if len(texts) == 1 or not all(texts):
        raise RequestError(Failure.EMPTY, "a sentence is empty, or there are none; send at least one")
    check_count(len(texts), most=server.settings.max_items)
    vectors, tokens = await embed_all(server.models.get(), texts, normalize=True, overflow=body.parameters.overflow)
    return Reply(content=vectors[1:] @ vectors[0], headers={"x-compute-tokens": str(tokens)})


async def _labels(served: ServedModel, texts: list[Text], body: PredictRequest) -> list[list[dict[str, Any]]]:
    tasks = served.service.tasks
    head = tasks.head(None, *CLASSIFIERS)
    if body.raw_scores:
        results = await run_all(served, rows_as_list(tasks.logits(head.name)), texts, overflow=body.overflow)
        scores = [dict(zip(head.labels, row.tolist(), strict=True)) for row in results.items]
    else:
        results = await run_all(served, tasks.classify(head.name), texts, overflow=body.overflow)
        scores = [item.scores for item in results.items]
    return [
        [{"score": score, "label": label} for label, score in sorted(of_text.items(), key=lambda item: -item[1])]
        for of_text in scores
    ]


def _inputs(inputs: str | list[str | list[str]]) -> tuple[list[Text], bool]:
    """Return texts and pairs, and whether they came as a batch."""
    if isinstance(inputs, str):
        return [inputs], False
    if len(inputs) in (1, 2) and all(isinstance(item, str) for item in inputs):
        return [_text(inputs)], False
    if not inputs:
        raise RequestError(Failure.EMPTY, "inputs is empty; send at least one text")
    return [_text(item) for item in inputs], True


def _text(parts: Any) -> Text:
    match parts:
        case [str(text)]:
            return text
        case [str(first), str(second)]:
            return first, second
    raise RequestError(Failure.INVALID, "expected a text, a pair of texts, or a list of lists of one or two texts")


ENDPOINTS = [
    Endpoint(paths=(path,), summary=summary, contract=TEI, handler=handler, body=body, result=result)
    for path, summary, handler, body, result in (
        ("/predict", "Labels of texts or pairs", predict, PredictRequest, list[Any]),
        ("/rerank", "Texts in the order of their scores for a query", rerank, RerankRequest, list[dict[str, Any]]),
        ("/similarity", "Cosines of a sentence with others", similarity, SimilarityRequest, list[float]),
    )
]
