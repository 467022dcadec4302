"""Padded rows to packed tokens and back, for graphs that compute no padding at all.

rows of 2 and 3 tokens     a b .     packed  a b c d e      token_offset  0 1 3
                           c d e     cu_seqlens  0 2 5                    4 5 2
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.session import FloatArray
from encort.runtime.tokens import BoolArray, Int64Array

DTYPES = {"token_offset": np.int32, "cu_seqlens": np.int32}
"""Of the inputs of a packed graph; the others are int64."""


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens that count lie in `(batch, sequence)`.

    Attributes:
        counts: `(batch, sequence)` bool; the first of each row is true.
    """

    counts: BoolArray

    def inputs(self, rows: Mapping[str, Int64Array]) -> dict[str, NDArray[Any]]:
        """Inputs of a packed graph, from those of padded rows, each `(batch, sequence)` int64."""
        flat = self.counts.ravel()
        packed: dict[str, NDArray[Any]] = {
            name: array[self.counts] for name, array in rows.items() if name != "attention_mask"
        }
        columns = np.broadcast_to(np.arange(self.counts.shape[1]), self.counts.shape)
        offsets = np.concatenate([np.flatnonzero(flat), np.flatnonzero(~flat)])
        return packed | {
            "position_ids": columns[self.counts],
            "token_offset": offsets.astype(np.int32).reshape(self.counts.shape),
            "cu_seqlens": np.cumsum([0, *self.counts.sum(axis=1)], dtype=np.int32),
        }

    def padded(self, tokens: FloatArray) -> FloatArray:
        """One value a token, `(tokens, ...)`, as `(batch, sequence, ...)` with zeros where none counts."""
        rows: FloatArray = np.zeros((*self.counts.shape, *tokens.shape[1:]), tokens.dtype)
        rows[self.counts] = tokens
        return rows
