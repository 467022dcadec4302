"""The routes of Jina and Cohere that put documents in the order of their scores for a query."""

import asyncio
import uuid
from typing import Any

import msgspec

from encort.runtime.model import Model
from encort.runtime.server.embeddings import check_count
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import OPENAI, Failure, RequestError
from encort.runtime.server.models import ServedModel
from encort.runtime.server.ranking import score_documents
from encort.runtime.tasks.results import Ranked
from encort.runtime.tasks.similarity import best_first
from encort.runtime.text.windows import merge_windows

_MOST_TOKENS = 4
"""Tokens of one character: at most its bytes."""


class Document(msgspec.Struct):
    """A document as an object."""

    text: str


class RerankRequestV1(msgspec.Struct, kw_only=True):
    """Body of `/v1/rerank`."""

    model: str | None = None
    query: str
    documents: list[str | Document]
    top_n: int | None = None
    return_documents: bool = False


class RerankRequestV2(msgspec.Struct, kw_only=True):
    """Body of `/v2/rerank`."""

    model: str | None = None
    query: str
    documents: list[str]
    top_n: int | None = None
    max_tokens_per_doc: int = 4096


async def rerank(server: Server, body: RerankRequestV1) -> Reply:
    """Return the documents in the form of Jina and of Cohere's version 1."""
    documents = [item if isinstance(item, str) else item.text for item in body.documents]
    name, ranked, tokens = await _rank(server, body, documents)
    results: list[dict[str, Any]] = [{"index": item.index, "relevance_score": item.score} for item in ranked]
    if body.return_documents:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    return Reply(content={"id": _new_id(), "model": name, "usage": {"total_tokens": tokens}, "results": results})


async def rerank_v2(server: Server, body: RerankRequestV2) -> Reply:
    """Return the documents in the form of Cohere's version 2."""
    documents = await _shortened(server.models.get(body.model), body.documents, most=body.max_tokens_per_doc)
    _, ranked, tokens = await _rank(server, body, documents)
    results = [{"index": item.index, "relevance_score": item.score} for item in ranked]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": tokens}}
    return Reply(content={"id": _new_id(), "results": results, "meta": meta})


async def _shortened(served: ServedModel, documents: list[str], *, most: int) -> list[str]:
    """Return documents without what comes after their first tokens.

    Args:
        served: The model, which reads at most `max_length` tokens anyway.
        documents: The documents.
        most: Most tokens of a document, without special tokens.

    Raises:
        RequestError: `most` is less than 1.
    """
    if most < 1:
        raise RequestError(Failure.INVALID, f"max_tokens_per_doc must be at least 1, got {most}")
    if most >= served.model.manifest.max_length:
        return documents
    return await asyncio.to_thread(lambda: [_beginning(served.model, text, most) for text in documents])


def _beginning(model: Model, text: str, tokens: int) -> str:
    if _MOST_TOKENS * len(text) <= tokens:
        return text
    # Windows have all tokens of a text, also where the tokenizer would cut its beginning.
    batch, _ = merge_windows(
        model.tokenize([text], overflow="window", stride=0, prompt="", return_offsets=True), [], tokenwise=True
    )
    assert batch.offsets is not None, "they were asked for"
    ends = batch.offsets.ends[batch.offsets.sequences >= 0]
    return text if len(ends) <= tokens else text[: ends[tokens - 1]]


async def _rank(
    server: Server, body: RerankRequestV1 | RerankRequestV2, documents: list[str]
) -> tuple[str, list[Ranked], int]:
    served = server.models.get(body.model)
    if not documents:
        raise RequestError(Failure.EMPTY, "documents is empty; send at least one")
    check_count(len(documents), most=server.settings.max_items)
    scores, tokens = await score_documents(served, body.query, documents)
    return served.name, best_first(scores, top_k=body.top_n), tokens


def _new_id() -> str:
    return str(uuid.uuid4())


ENDPOINTS = [
    Endpoint(
        paths=("/v1/rerank",),
        summary="Documents in the order of their scores for a query",
        contract=OPENAI,
        handler=rerank,
        body=RerankRequestV1,
        result=dict[str, Any],
    ),
    Endpoint(
        paths=("/v2/rerank",),
        summary="Documents in the order of their scores for a query, as Cohere gives them",
        contract=OPENAI,
        handler=rerank_v2,
        body=RerankRequestV2,
        result=dict[str, Any],
    ),
]
