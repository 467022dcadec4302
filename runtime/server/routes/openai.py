"""The routes of OpenAI: embeddings and models."""

import base64
from typing import Any, Literal

import msgspec

from encort.runtime.common.arrays import FloatArray
from encort.runtime.server.embeddings import Input, as_texts, embed_all
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import OPENAI
from encort.runtime.server.ranking import tasks_of


class EmbeddingsRequest(msgspec.Struct, kw_only=True):
    """Body of `/v1/embeddings`."""

    input: Input
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: str | None = None


async def embeddings(server: Server, body: EmbeddingsRequest) -> Reply:
    """Return one embedding per text, as numbers or as the base64 of little-endian float32."""
    served = server.models.get(body.model)
    texts = as_texts(body.input, most=server.settings.max_items)
    vectors, tokens = await embed_all(served, texts, dimensions=body.dimensions)
    encoded = _base64(vectors) if body.encoding_format == "base64" else list(vectors)
    data = [{"object": "embedding", "index": index, "embedding": item} for index, item in enumerate(encoded)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return Reply(content={"object": "list", "data": data, "model": served.name, "usage": usage})


def _base64(vectors: FloatArray) -> list[str]:
    return [base64.b64encode(row).decode("ascii") for row in vectors.astype("<f4", copy=False)]


async def models(server: Server, _: None) -> Reply:
    """Return the names of the models and their aliases, and the tasks of each, which OpenAI does not have."""
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": "encort", "tasks": tasks_of(server.models.get(name))}
        for name in server.models.names
    ]
    return Reply(content={"object": "list", "data": data})


ENDPOINTS = [
    Endpoint(
        paths=("/v1/embeddings", "/embeddings"),
        summary="Embeddings of texts, as OpenAI gives them",
        contract=OPENAI,
        handler=embeddings,
        body=EmbeddingsRequest,
        result=dict[str, Any],
    ),
    Endpoint(
        paths=("/v1/models",), summary="Names of the models", contract=OPENAI, handler=models, result=dict[str, Any]
    ),
]
