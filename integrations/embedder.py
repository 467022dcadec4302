"""Embeddings of queries and of documents, with the prompts that the bundle has for them."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from encort.integrations.lazy_model import LazyModel
from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.prompts import DOCUMENT_NAMES, QUERY_NAMES, Prompt

Role = Literal["query", "document"]

PromptOption = str | Prompt | Mapping[str, str] | None
"""A prompt as adapters take it: the name of one of the bundle's prompts, a literal `Prompt`, or what `saved_prompt`
made of it. None: the bundle's prompt for the role. An empty str: no prompt."""


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """Embeds texts for an adapter.

    Lists of texts are planned as one batch. Single texts of concurrent callers gather in one queue and share runs.

    Attributes:
        model: The model.
        query_prompt: Prompt of queries; None: "query", if the bundle has it.
        document_prompt: Prompt of documents; None: the first of "document", "passage" and "corpus" that the bundle has.
        dimensions: Number of leading values of each embedding; None: as many as the bundle says.
    """

    model: LazyModel
    query_prompt: PromptOption = None
    document_prompt: PromptOption = None
    dimensions: int | None = None

    def embed(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Return embeddings, `(n, dim)` float32."""
        return self.model.open().embed(texts, prompt=self._prompt(role), dimensions=self.dimensions)

    def embed_one(self, text: str, role: Role) -> FloatArray:
        """Return the embedding of one text, `(dim,)` float32."""
        return self.model.service().embed(text, prompt=self._prompt(role), dimensions=self.dimensions)

    async def embed_async(self, texts: Sequence[str], role: Role) -> FloatArray:
        """Return embeddings, `(n, dim)` float32, computed in a thread."""
        return await asyncio.to_thread(self.embed, texts, role)

    async def embed_one_async(self, text: str, role: Role) -> FloatArray:
        """Return the embedding of one text, `(dim,)` float32. Cancelling takes the text out of the queue."""
        service = await self.model.service_async()
        return await service.embed(text, prompt=self._prompt(role), dimensions=self.dimensions)

    def _prompt(self, role: Role) -> str | Prompt:
        option = self.query_prompt if role == "query" else self.document_prompt
        if option is None:
            return self.model.manifest.prompts.choose(QUERY_NAMES if role == "query" else DOCUMENT_NAMES)
        return Prompt(**option) if isinstance(option, Mapping) else option


def saved_prompt(option: PromptOption) -> str | dict[str, str] | None:
    """Return a prompt as JSON holds it. Adapters take the result in place of the prompt."""
    if isinstance(option, Prompt):
        return {"text": option.text}
    return dict(option) if isinstance(option, Mapping) else option
