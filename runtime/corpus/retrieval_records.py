"""Records of `encort embed --tokens` and `--sparse`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.corpus.inputs import Record
from encort.runtime.corpus.records import EmbeddingRecords, with_counts
from encort.runtime.model import Model
from encort.runtime.text.token_batch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class TokenVectorRecords(EmbeddingRecords):
    """Records with the vectors of the tokens of each text."""

    def no_embeddings(self, model: Model) -> NDArray[Any]:
        """Return an array of no embeddings.

        Raises:
            WrongTaskError: The bundle gives neither token vectors nor hidden states.
            InputError: There is no such prompt.
        """
        model.embed_tokens([], prompt=self.prompt)
        return np.empty((0, 0), np.float32)

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text."""
        return with_counts(batch, ({"token_embeddings": [*vectors]} for vectors in model.embed_tokens(batch)))


@dataclass(frozen=True, kw_only=True)
class SparseRecords(EmbeddingRecords):
    """Records with the sparse embedding of each text.

    Attributes:
        top_k: Most weights of a text; None: all.
    """

    top_k: int | None = None

    def no_embeddings(self, model: Model) -> NDArray[Any]:
        """Return an array of no embeddings.

        Raises:
            WrongTaskError: The bundle has no sparse embeddings.
            InputError: There is no such prompt.
        """
        model.embed_sparse([], prompt=self.prompt, top_k=self.top_k)
        return np.empty((0, 0), np.float32)

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text."""
        embeddings = model.embed_sparse(batch, top_k=self.top_k)
        return with_counts(batch, ({"indices": each.indices, "weights": each.weights} for each in embeddings))


def choose_records(
    *, tokens: bool, sparse: bool, top_k: int | None, prompt: str | None, **dense: Any
) -> EmbeddingRecords:
    """Return the records that the options of `encort embed` ask for."""
    if tokens:
        return TokenVectorRecords(prompt=prompt)
    return SparseRecords(prompt=prompt, top_k=top_k) if sparse else EmbeddingRecords(prompt=prompt, **dense)


def conflict(*, tokens: bool, sparse: bool, top_k: int | None, dense: Sequence[str]) -> str | None:
    """Return why options cannot stand together; None if they can.

    Args:
        tokens: Whether token vectors are wanted.
        sparse: Whether sparse embeddings are wanted.
        top_k: See `SparseRecords`.
        dense: Names of given options that are for sentence embeddings.
    """
    if tokens and sparse:
        return "--tokens and --sparse are different embeddings; give one of them"
    if top_k is not None and not sparse:
        return "--top-k is the number of weights of --sparse; give both"
    if dense and (tokens or sparse):
        return f"{' and '.join(dense)}: for sentence embeddings alone, not for {'--tokens' if tokens else '--sparse'}"
    return None
