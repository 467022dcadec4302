"""The routes of text-embeddings-inference."""

import time
from typing import Literal

import msgspec

from encort.runtime.server.embeddings import Input, as_texts, embed_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import TEI, Failure, RequestError
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


class EmbedRequest(Truncation, kw_only=True):
    """Body of `/embed`."""

    inputs: Input
    normalize: bool = True
    dimensions: int | None = None
    prompt_name: str | None = None


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
    Endpoint(paths=("/health", "/ping"), summary="Whether the server is ready", contract=TEI, handler=health),
]
