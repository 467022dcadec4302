"""Padded rows to packed tokens and back, for graphs that compute no padding at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import BoolArray, FloatArray, Int32Array, Int64Array
from encort.runtime.engine.session import TensorSpecs

COLUMNS = 8
"""Attention with a bias is the faster kernel's where rows have a multiple of so many places."""


def token_offset(counts: BoolArray) -> Int32Array:
    """TensorSpecs of the tokens that count, one text after the other, and then all others; the rows are made a little wider.

    >>> token_offset(np.array([[True, True], [True, False]]))[:, :3].tolist()
    [[0, 1, 8], [7, 9, 10]]

    Args:
        counts: `(batch, sequence)`.
    """
    wide = np.pad(counts, ((0, 0), (0, -counts.shape[1] % COLUMNS)))
    places = np.concatenate([np.flatnonzero(wide), np.flatnonzero(~wide)])
    return places.astype(np.int32).reshape(wide.shape)


def packed_specs(variant: Variant, *, rows: int, tokens: int, sequence: int) -> tuple[TensorSpecs, TensorSpecs]:
    """Shapes and dtypes of the inputs and of the outputs of a packed graph.

    Args:
        variant: Of the graph.
        rows: Texts of the run.
        tokens: Of all texts.
        sequence: Columns of `token_offset`.
    """
    sizes = {"batch": rows, "tokens": tokens, "sequence": sequence, "bounds": rows + 1}

    def of(axes_of: Mapping[str, Sequence[str]], dtypes: Mapping[str, type[np.generic]]) -> TensorSpecs:
        return {
            name: ([sizes[axis] if axis in sizes else int(axis) for axis in axes], dtypes[name])
            for name, axes in axes_of.items()
        }

    integers = dict.fromkeys(variant.inputs, np.int64) | {"token_offset": np.int32, "cu_seqlens": np.int32}
    return of(variant.inputs, integers), of(variant.outputs, dict.fromkeys(variant.outputs, np.float32))


@dataclass(frozen=True, eq=False)
class Packing:
    """Where the tokens that count lie in `(batch, sequence)`.

    Attributes:
        counts: `(batch, sequence)` bool; the first of each row is true.
    """

    counts: BoolArray

    def inputs(self, rows: Mapping[str, Int64Array]) -> dict[str, NDArray[Any]]:
        """Inputs of a packed graph, from those of padded rows, each `(batch, sequence)` int64."""
        packed: dict[str, NDArray[Any]] = {
            name: array[self.counts] for name, array in rows.items() if name != "attention_mask"
        }
        return packed | {
            "position_ids": np.nonzero(self.counts)[1],
            "token_offset": token_offset(self.counts),
            "cu_seqlens": np.cumsum([0, *self.counts.sum(axis=1)], dtype=np.int32),
        }

    def padded(self, tokens: FloatArray) -> FloatArray:
        """One value a token, `(tokens, ...)`, as `(batch, sequence, ...)` with zeros where none counts."""
        rows: FloatArray = np.zeros((*self.counts.shape, *tokens.shape[1:]), tokens.dtype)
        rows[self.counts] = tokens
        return rows
