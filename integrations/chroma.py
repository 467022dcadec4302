"""The embedding function for Chroma.

Install it with `pip install "encort[chroma]"`:

    import chromadb
    from encort.integrations.chroma import EncortEmbeddingFunction

    client = chromadb.PersistentClient("chroma")
    collection = client.create_collection("messages", embedding_function=EncortEmbeddingFunction("my.bundle"))

The collection remembers the folder and the options. Where it is opened again, import this module first: Chroma then
makes the function again by itself.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Unpack

from encort.integrations.embedder import Embedder, PromptOption, saved_prompt
from encort.integrations.lazy_model import BundleOrModel, LoadKeywords, ModelOwner, shared_model
from encort.runtime.bundle.manifest import Similarity
from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require

require("encort.integrations.chroma", "chroma", "chromadb")

from chromadb.api.types import Documents, EmbeddingFunction, Embeddings, Space  # noqa: E402 - after the check
from chromadb.utils.embedding_functions import register_embedding_function  # noqa: E402

__all__ = ["EncortEmbeddingFunction"]

_SPACES: Mapping[Similarity, Space] = {Similarity.COSINE: "cosine", Similarity.DOT: "ip", Similarity.EUCLIDEAN: "l2"}
"""Chroma's names of similarities. It has no Manhattan distance."""
_FIXED = ("query_prompt", "document_prompt", "dimensions")
"""Options that cannot change in a collection: its embeddings were made with them."""


@register_embedding_function
class EncortEmbeddingFunction(ModelOwner, EmbeddingFunction[Documents]):
    """Embeddings of a bundle, for collections.

    All functions of a process with the same folder and the same options of `encort.load` share one model, because
    Chroma makes a function again for every collection that it opens. Closing one of them releases the model of all,
    until one of them is used again.
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
        self._model = shared_model(bundle, load_options)
        self._embedder = Embedder(
            model=self._model, query_prompt=query_prompt, document_prompt=document_prompt, dimensions=dimensions
        )

    def __call__(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's name
        """Return one embedding per document."""
        return list(self._embedder.embed(input, "document"))

    def embed_query(self, input: Documents) -> Embeddings:  # noqa: A002 - Chroma's name
        """Return one embedding per query."""
        return list(self._embedder.embed(input, "query"))

    @staticmethod
    def name() -> str:
        """Return the name of the function in the configuration of collections."""
        return "encort"

    def default_space(self) -> Space:
        """Return the similarity of the bundle, by Chroma's name."""
        embedding = self._model.manifest.embedding
        similarity = Similarity.COSINE if embedding is None else embedding.similarity
        if similarity not in _SPACES:
            warnings.warn(f"Chroma has no {similarity} distance; the collection uses l2", stacklevel=2)
        return _SPACES.get(similarity, "l2")

    def supported_spaces(self) -> list[Space]:
        """Return all spaces: embeddings are vectors as any others."""
        return ["cosine", "l2", "ip"]

    def get_config(self) -> dict[str, Any]:
        """Return folder and options, for `build_from_config`."""
        return {
            "bundle": self._model.bundle,
            "query_prompt": saved_prompt(self._embedder.query_prompt),
            "document_prompt": saved_prompt(self._embedder.document_prompt),
            "dimensions": self._embedder.dimensions,
            "load_options": self._model.options,
        }

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> "EncortEmbeddingFunction":
        """Return a function with the folder and the options of `get_config`."""
        options = {name: value for name, value in config.items() if name != "load_options"}
        return EncortEmbeddingFunction(**options, **config.get("load_options", {}))

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse a configuration that does not name a bundle, or has unknown options.

        Raises:
            InputError: It cannot be used.
        """
        if "bundle" not in config:
            raise InputError(f"the configuration of the embedding function must name a bundle; got {config}")
        EncortEmbeddingFunction.build_from_config(config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse to change what the embeddings of a collection were made with. The bundle may have moved.

        Raises:
            InputError: A prompt or the number of dimensions changes.
        """
        for option in _FIXED:
            old, new = old_config.get(option), new_config.get(option)
            if old != new:
                made = f"the embeddings of this collection were made with {option}={old!r}, not {new!r}"
                raise InputError(f"{made}; make a new collection")
