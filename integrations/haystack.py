"""Embedders and a ranker for Haystack.

Install it with `pip install "encort[haystack]"`:

    from encort.integrations.haystack import EncortDocumentEmbedder, EncortRanker, EncortTextEmbedder
    from haystack import Pipeline

    pipeline = Pipeline()
    pipeline.add_component("embedder", EncortTextEmbedder("my.bundle"))

Haystack loads a saved pipeline only with modules that are allowed:
`Pipeline.loads(text, allowed_modules=["encort.integrations.haystack"])`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Self, Unpack

from encort.integrations.embedder import Embedder, PromptOption, saved_prompt
from encort.integrations.lazy_model import BundleOrModel, LazyModel, LoadKeywords, ModelOwner
from encort.runtime.common.errors import InputTypeError
from encort.runtime.common.extras import require
from encort.runtime.tasks.results import Ranked

require("encort.integrations.haystack", "haystack", "haystack")

from haystack import Document, component, default_from_dict, default_to_dict  # noqa: E402 - after the check

__all__ = ["EncortDocumentEmbedder", "EncortRanker", "EncortTextEmbedder"]


class _Component(ModelOwner):
    """Base of the components: they open the model in `warm_up`, and are saved as their parameters."""

    def _set_up(self, bundle: BundleOrModel, load_options: LoadKeywords, **parameters: Any) -> None:
        # Not __init__: the decorator makes another class of each component, which super() would not find.
        self._model = LazyModel(bundle, load_options)
        self._parameters = parameters

    def warm_up(self) -> None:
        """Open the model."""
        self._model.open()

    def to_dict(self) -> dict[str, Any]:
        """Return the parameters of the component, for `from_dict`."""
        saved: dict[str, Any] = default_to_dict(
            self, bundle=self._model.bundle, **self._parameters, **self._model.options
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Return a component with the parameters that `to_dict` gave."""
        loaded: Self = default_from_dict(cls, data)
        return loaded


@component
class EncortTextEmbedder(_Component):
    """Embeds a query. Queries of concurrent pipelines share runs."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        prompt: PromptOption = None,
        dimensions: int | None = None,
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened by `warm_up`.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            prompt: Name of one of the bundle's prompts, or an `encort.Prompt`; None: "query", if the bundle has it. An
                empty str: no prompt.
            dimensions: Number of leading values of the embedding; None: as many as the bundle says.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        self._set_up(bundle, load_options, prompt=saved_prompt(prompt), dimensions=dimensions)
        self._embedder = Embedder(model=self._model, query_prompt=prompt, dimensions=dimensions)

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Return the embedding of a text."""
        return {"embedding": self._embedder.embed_one(_text(text), "query").tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str) -> dict[str, Any]:
        """Return the embedding of a text. Cancelling takes it out of the queue."""
        return {"embedding": (await self._embedder.embed_one_async(_text(text), "query")).tolist()}


@component
class EncortDocumentEmbedder(_Component):
    """Gives documents their embeddings."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        prompt: PromptOption = None,
        dimensions: int | None = None,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened by `warm_up`.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            prompt: Name of one of the bundle's prompts, or an `encort.Prompt`; None: the first of "document", "passage"
                and "corpus" that the bundle has. An empty str: no prompt.
            dimensions: Number of leading values of each embedding; None: as many as the bundle says.
            meta_fields_to_embed: Fields of the metadata that are put before the content.
            embedding_separator: Text between these fields and the content.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        self._meta_fields, self._separator = meta_fields_to_embed or [], embedding_separator
        self._set_up(
            bundle,
            load_options,
            prompt=saved_prompt(prompt),
            dimensions=dimensions,
            meta_fields_to_embed=self._meta_fields,
            embedding_separator=embedding_separator,
        )
        self._embedder = Embedder(model=self._model, document_prompt=prompt, dimensions=dimensions)

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return copies of the documents with their embeddings."""
        texts = _texts(documents, self._meta_fields, self._separator)
        return _embedded(documents, self._embedder.embed(texts, "document").tolist())

    @component.output_types(documents=list[Document])
    async def run_async(self, documents: list[Document]) -> dict[str, Any]:
        """Return copies of the documents with their embeddings."""
        texts = _texts(documents, self._meta_fields, self._separator)
        return _embedded(documents, (await self._embedder.embed_async(texts, "document")).tolist())


@component
class EncortRanker(_Component):
    """Keeps the documents that a model ranks best for a query; see `Model.rank`. Their scores are the model's."""

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        top_k: int | None = 10,
        meta_fields_to_embed: list[str] | None = None,
        embedding_separator: str = "\n",
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened by `warm_up`.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            top_k: Number of documents that are kept; None keeps all of them, the best first.
            meta_fields_to_embed: Fields of the metadata that are put before the content.
            embedding_separator: Text between these fields and the content.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        self._top_k = top_k
        self._meta_fields, self._separator = meta_fields_to_embed or [], embedding_separator
        self._set_up(
            bundle,
            load_options,
            top_k=top_k,
            meta_fields_to_embed=self._meta_fields,
            embedding_separator=embedding_separator,
        )

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Return copies of the best documents with their scores, the best first.

        Args:
            query: The query.
            documents: Documents to rank.
            top_k: Number of documents that are kept; None: that of the component.
        """
        texts = _texts(documents, self._meta_fields, self._separator)
        return _ranked(documents, self._model.open().rank(_text(query), texts, top_k=self._kept(top_k)))

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Return copies of the best documents with their scores, the best first; see `run`."""
        texts = _texts(documents, self._meta_fields, self._separator)
        return _ranked(documents, await self._model.rank_async(_text(query), texts, top_k=self._kept(top_k)))

    def _kept(self, top_k: int | None) -> int | None:
        return self._top_k if top_k is None else top_k


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise InputTypeError(f"expected a str, got {type(text).__name__}; EncortDocumentEmbedder takes documents")
    return text


def _texts(documents: object, meta_fields: Sequence[str], separator: str) -> list[str]:
    """Return the texts that the model reads for the documents: fields of their metadata, and their content."""
    if not isinstance(documents, list) or not all(isinstance(document, Document) for document in documents):
        raise InputTypeError("expected a list of documents of Haystack; EncortTextEmbedder takes a str")
    return [separator.join([*_fields(document, meta_fields), document.content or ""]) for document in documents]


def _fields(document: Document, names: Sequence[str]) -> list[str]:
    return [str(document.meta[name]) for name in names if document.meta.get(name) is not None]


def _embedded(documents: list[Document], embeddings: list[list[float]]) -> dict[str, Any]:
    pairs = zip(documents, embeddings, strict=True)
    return {"documents": [replace(document, embedding=embedding) for document, embedding in pairs]}


def _ranked(documents: list[Document], ranked: Sequence[Ranked]) -> dict[str, Any]:
    return {"documents": [replace(documents[item.index], score=item.score) for item in ranked]}
