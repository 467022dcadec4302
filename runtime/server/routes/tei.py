"""The routes of text-embeddings-inference for embeddings, and its health."""

import time
from dataclasses import replace
from typing import Any, Literal, TypedDict

import msgspec

from encort.runtime.server.embeddings import Input, as_texts, embed_all, run_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import TEI, Failure, RequestError
from encort.runtime.server.models import ServedModel
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.windows import Overflow


class Truncation(msgspec.Struct, kw_only=True):
    """Fields that say what is done with texts over the limit."""

    truncate: bool = True
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"

    @property
    def overflow(self) -> Overflow:
        """The policy."""
        if not self.truncate:
            return "error"
        return "truncate_left" if self.truncation_direction.lower() == "left" else "truncate"


class TextsRequest(Truncation, kw_only=True):
    """Body of `/embed_all` and `/embed_sparse`."""

    inputs: Input
    prompt_name: str | None = None


class EmbedRequest(TextsRequest, kw_only=True):
    """Body of `/embed`."""

    normalize: bool = True
    dimensions: int | None = None


class Weight(TypedDict):
    """A token id with its weight."""

    index: int
    value: float


async def embed(server: Server, body: EmbedRequest) -> Reply:
    """Return one embedding per text."""
    start = time.perf_counter()
    texts = as_texts(body.inputs, most=server.settings.max_items)
    vectors, tokens = await embed_all(
        server.models.get(),
        texts,
        normalize=body.normalize,
        dimensions=body.dimensions,
        prompt=body.prompt_name,
        overflow=body.overflow,
    )
    total_ms = round(1000 * (time.perf_counter() - start))
    return Reply(content=vectors, headers={"x-compute-tokens": str(tokens), "x-total-time": str(total_ms)})


async def embed_tokens(server: Server, body: TextsRequest) -> Reply:
    """Return one vector per token of each text."""
    served = server.models.get()
    return await _reply(server, served, served.service.tasks.embed_tokens(prompt=body.prompt_name), body)


async def embed_sparse(server: Server, body: TextsRequest) -> Reply:
    """Return the token ids of each text that have a weight."""
    served = server.models.get()
    reply = await _reply(server, served, served.service.tasks.embed_sparse(prompt=body.prompt_name), body)
    content = [
        [{"index": index, "value": value} for index, value in zip(item.indices, item.weights, strict=True)]
        for item in reply.content
    ]
    return replace(reply, content=content)


async def _reply(server: Server, served: ServedModel, spec: TaskSpec[Any], body: TextsRequest) -> Reply:
    texts = as_texts(body.inputs, most=server.settings.max_items)
    results = await run_all(served, spec, texts, overflow=body.overflow)
    return Reply(content=results.items, headers={"x-compute-tokens": str(results.tokens)})


async def health(server: Server, _: None) -> Reply:
    """Return an empty body if every model takes requests."""
    if not server.models.is_ready:
        raise RequestError(Failure.UNHEALTHY, "the server is not ready; try again later")
    return Reply()


ENDPOINTS = [
    Endpoint(
        paths=("/embed",),
        summary="Embeddings of texts",
        contract=TEI,
        handler=embed,
        body=EmbedRequest,
        result=list[list[float]],
    ),
    Endpoint(
        paths=("/embed_all",),
        summary="Vectors of the tokens of texts",
        contract=TEI,
        handler=embed_tokens,
        body=TextsRequest,
        result=list[list[list[float]]],
    ),
    Endpoint(
        paths=("/embed_sparse",),
        summary="Weights of the tokens of texts",
        contract=TEI,
        handler=embed_sparse,
        body=TextsRequest,
        result=list[list[Weight]],
    ),
    Endpoint(paths=("/health", "/ping"), summary="Whether the server is ready", contract=TEI, handler=health),
]
