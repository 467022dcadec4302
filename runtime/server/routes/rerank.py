"""The routes of Jina and Cohere that put documents in the order of their scores for a query."""

import uuid
from typing import Any

import msgspec

from encort.runtime.server.embeddings import check_count
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import OPENAI, Failure, RequestError
from encort.runtime.server.ranking import score_documents
from encort.runtime.tasks.results import Ranked
from encort.runtime.tasks.similarity import best_first


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
    _, ranked, tokens = await _rank(server, body, body.documents)
    results = [{"index": item.index, "relevance_score": item.score} for item in ranked]
    meta = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "tokens": {"input_tokens": tokens}}
    return Reply(content={"id": _new_id(), "results": results, "meta": meta})


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
