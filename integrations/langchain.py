"""Embeddings and reranking for LangChain.

Install it with `pip install "encort[langchain]"`:

    from encort.integrations.langchain import EncortEmbeddings, EncortRerank
    from langchain_core.vectorstores import InMemoryVectorStore

    store = InMemoryVectorStore(EncortEmbeddings("my.bundle"))
"""

from collections.abc import Sequence
from typing import Unpack

from encort.integrations.embedder import Embedder, PromptOption
from encort.integrations.lazy_model import BundleOrModel, LazyModel, LoadKeywords, ModelOwner
from encort.runtime.common.extras import require
from encort.runtime.tasks.results import Ranked

require("encort.integrations.langchain", "langchain", "langchain_core")

from langchain_core.callbacks import Callbacks  # noqa: E402 - after the check that it is installed
from langchain_core.documents import BaseDocumentCompressor, Document  # noqa: E402
from langchain_core.embeddings import Embeddings  # noqa: E402

__all__ = ["EncortEmbeddings", "EncortRerank"]


class EncortEmbeddings(ModelOwner, Embeddings):
    """Embeddings of a bundle, for vector stores and retrievers.

    Queries of concurrent callers, from threads and from asyncio, share runs.
    """

    def __init__(
        self,
        bundle: BundleOrModel,
        *,
        query_prompt: PromptOption = None,
        document_prompt: PromptOption = None,
        dimensions: int | None = None,
        **load_options: Unpack[LoadKeywords],
    ) -> None:
        """Use a bundle, which is opened at the first call.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            query_prompt: Prompt of queries: a name of one of the bundle, or an `encort.Prompt`; None: "query", if the
                bundle has it. An empty str: no prompt.
            document_prompt: Prompt of documents; None: the first of "document", "passage" and "corpus" that the bundle
                has.
            dimensions: Number of leading values of each embedding; None: as many as the bundle says.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        self._model = LazyModel(bundle, load_options)
        self._embedder = Embedder(
            model=self._model, query_prompt=query_prompt, document_prompt=document_prompt, dimensions=dimensions
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one embedding per document."""
        embeddings: list[list[float]] = self._embedder.embed(texts, "document").tolist()
        return embeddings

    def embed_query(self, text: str) -> list[float]:
        """Return the embedding of a query."""
        embedding: list[float] = self._embedder.embed_one(text, "query").tolist()
        return embedding

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one embedding per document."""
        embeddings: list[list[float]] = (await self._embedder.embed_async(texts, "document")).tolist()
        return embeddings

    async def aembed_query(self, text: str) -> list[float]:
        """Return the embedding of a query. Cancelling takes it out of the queue."""
        embedding: list[float] = (await self._embedder.embed_one_async(text, "query")).tolist()
        return embedding


class EncortRerank(ModelOwner, BaseDocumentCompressor):
    """Keeps the documents that a model ranks best for a query; see `Model.rank`.

    The metadata of each document gets its score, as `relevance_score`.

    Attributes:
        top_n: Number of documents that are kept; None keeps all of them, the best first.
    """

    top_n: int | None = 3
    _model: LazyModel

    def __init__(self, bundle: BundleOrModel, *, top_n: int | None = 3, **load_options: Unpack[LoadKeywords]) -> None:
        """Use a bundle, which is opened at the first call.

        Args:
            bundle: Folder of a bundle or `"hf://org/name@revision"`; or a loaded model.
            top_n: Number of documents that are kept; None keeps all of them.
            load_options: Options of `encort.load`.

        Raises:
            InputError: There is no such option, or it has no such value.
        """
        super().__init__(top_n=top_n)
        self._model = LazyModel(bundle, load_options)

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks = None,  # noqa: ARG002 - LangChain's signature
    ) -> Sequence[Document]:
        """Return the best documents for the query, the best first."""
        ranked = self._model.open().rank(query, _texts(documents), top_k=self.top_n)
        return _scored(documents, ranked)

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks = None,  # noqa: ARG002 - LangChain's signature
    ) -> Sequence[Document]:
        """Return the best documents for the query, the best first."""
        return _scored(documents, await self._model.rank_async(query, _texts(documents), top_k=self.top_n))


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]


def _scored(documents: Sequence[Document], ranked: Sequence[Ranked]) -> list[Document]:
    """Return copies of the ranked documents with their scores."""
    return [
        documents[item.index].model_copy(
            update={"metadata": {**documents[item.index].metadata, "relevance_score": item.score}}
        )
        for item in ranked
    ]
