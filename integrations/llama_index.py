"""Embeddings and reranking for LlamaIndex.

Install it with `pip install "encort[llama-index]"`:

    from encort.integrations.llama_index import EncortEmbedding, EncortRerank
    from llama_index.core import Settings

    Settings.embed_model = EncortEmbedding("my.bundle")
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from encort.integrations.embedder import Embedder, PromptOption, saved_prompt
from encort.integrations.lazy_model import BundleOrModel, LazyModel, LoadKeywords, ModelOwner
from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require
from encort.runtime.tasks.results import Ranked

require("encort.integrations.llama_index", "llama-index", "llama_index.core")

from llama_index.core.base.embeddings.base import BaseEmbedding  # noqa: E402 - after the check that it is installed
from llama_index.core.bridge.pydantic import Field  # noqa: E402
from llama_index.core.instrumentation import get_dispatcher  # noqa: E402
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent  # noqa: E402
from llama_index.core.postprocessor.types import BaseNodePostprocessor  # noqa: E402
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle  # noqa: E402

__all__ = ["EncortEmbedding", "EncortRerank"]

_dispatcher = get_dispatcher(__name__)


class EncortEmbedding(ModelOwner, BaseEmbedding):
    """Embeddings of a bundle, for indexes and retrievers.

    Queries and single texts of concurrent callers, from threads and from asyncio, share runs.

    Attributes:
        bundle: Folder of the bundle, or its name on the hub.
        load_options: Options of `encort.load`.
        query_prompt: Prompt of queries, as `saved_prompt` gives it.
        document_prompt: Prompt of texts, as `saved_prompt` gives it.
        dimensions: Number of leading values of each embedding.
    """

    bundle: str
    load_options: dict[str, Any] = Field(default_factory=dict)
    query_prompt: str | dict[str, str] | None = None
    document_prompt: str | dict[str, str] | None = None
    dimensions: int | None = None
    _model: LazyModel
    _embedder: Embedder

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        query_prompt: PromptOption = None,
        document_prompt: PromptOption = None,
        dimensions: int | None = None,
        embed_batch_size: int = 1024,
        load_options: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Use a bundle, which is opened at the first call.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            query_prompt: Prompt of queries: a name of one of the bundle, or an `encort.Prompt`; None: "query", if the
                bundle has it. An empty str: no prompt.
            document_prompt: Prompt of texts; None: the first of "document", "passage" and "corpus" that the bundle
                has.
            dimensions: Number of leading values of each embedding; None: as many as the bundle says.
            embed_batch_size: Texts per call of the model, which plans its runs over all of them.
            load_options: Options of `encort.load`; they can also be given as keywords.
            options: Options of `encort.load` (`precision="int8"`) and fields of `BaseEmbedding` (`num_workers=4`).

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        fields = {name: options.pop(name) for name in list(options) if name in BaseEmbedding.model_fields}
        model = LazyModel(bundle, {**(load_options or {}), **options})
        super().__init__(
            bundle=model.bundle,
            load_options=model.options,
            query_prompt=saved_prompt(query_prompt),
            document_prompt=saved_prompt(document_prompt),
            dimensions=dimensions,
            embed_batch_size=embed_batch_size,
            **{"model_name": Path(model.bundle).name, **fields},
        )
        self._model = model
        self._embedder = Embedder(
            model=model, query_prompt=query_prompt, document_prompt=document_prompt, dimensions=dimensions
        )

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class in serialized data."""
        return "EncortEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        embedding: list[float] = self._embedder.embed_one(query, "query").tolist()
        return embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        embedding: list[float] = (await self._embedder.embed_one_async(query, "query")).tolist()
        return embedding

    def _get_text_embedding(self, text: str) -> list[float]:
        embedding: list[float] = self._embedder.embed_one(text, "document").tolist()
        return embedding

    async def _aget_text_embedding(self, text: str) -> list[float]:
        embedding: list[float] = (await self._embedder.embed_one_async(text, "document")).tolist()
        return embedding

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings: list[list[float]] = self._embedder.embed(texts, "document").tolist()
        return embeddings

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        embeddings: list[list[float]] = (await self._embedder.embed_async(texts, "document")).tolist()
        return embeddings


class EncortRerank(ModelOwner, BaseNodePostprocessor):
    """Keeps the nodes that a model ranks best for the query; see `Model.rank`. Their scores are the model's.

    Attributes:
        bundle: Folder of the bundle, or its name on the hub.
        load_options: Options of `encort.load`.
        top_n: Number of nodes that are kept; None keeps all of them, the best first.
    """

    bundle: str
    load_options: dict[str, Any] = Field(default_factory=dict)
    top_n: int | None = 2
    _model: LazyModel

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        top_n: int | None = 2,
        load_options: Mapping[str, Any] | None = None,
        callback_manager: Any = None,
        **options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first call.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            top_n: Number of nodes that are kept; None keeps all of them.
            load_options: Options of `encort.load`; they can also be given as keywords.
            callback_manager: See `BaseNodePostprocessor`.
            options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        model = LazyModel(bundle, {**(load_options or {}), **options})
        callbacks = {} if callback_manager is None else {"callback_manager": callback_manager}
        super().__init__(bundle=model.bundle, load_options=model.options, top_n=top_n, **callbacks)
        self._model = model

    @classmethod
    def class_name(cls) -> str:
        """Return the name of the class in serialized data."""
        return "EncortRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._start(nodes, query_bundle)
        return self._end(nodes, self._model.open().rank(query, _texts(nodes), top_k=self.top_n))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        query = self._start(nodes, query_bundle)
        return self._end(nodes, await self._model.rank_async(query, _texts(nodes), top_k=self.top_n))

    def _start(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> str:
        if query_bundle is None:
            raise InputError("reranking needs the query: postprocess_nodes(nodes, query_str=...)")
        top_n = len(nodes) if self.top_n is None else self.top_n
        name = Path(self.bundle).name
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=name))
        return str(query_bundle.query_str)

    def _end(self, nodes: list[NodeWithScore], ranked: Sequence[Ranked]) -> list[NodeWithScore]:
        kept = [NodeWithScore(node=nodes[item.index].node, score=item.score) for item in ranked]
        _dispatcher.event(ReRankEndEvent(nodes=kept))
        return kept


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    """Return the texts that the index embeds for the nodes."""
    return [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
