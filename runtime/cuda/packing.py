"""Pack padded rows into one row of tokens, and unpack the results, for graphs that compute no padding at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import BoolArray, FloatArray, Int32Array, Int64Array
from encort.runtime.engine.session import TensorSpecs

COLUMN_MULTIPLE = 8
"""Attention with a bias takes a faster kernel where the number of columns is a multiple of this."""


def token_offset(mask: BoolArray) -> Int32Array:
    """Return the flat positions of all tokens, text after text, and then those of the padding.

    This is the input `token_offset` of ONNX Runtime's PackedMultiHeadAttention. The rows are widened to a multiple of
    `COLUMN_MULTIPLE`, and positions are counted in the widened rows.

    >>> token_offset(np.array([[True, True], [True, False]]))[:, :3].tolist()
    [[0, 1, 8], [7, 9, 10]]

    Args:
        mask: `(batch, sequence)` bool, true on tokens and false on padding.

    Returns:
        `(batch, widened sequence)` int32.
    """
    widened = np.pad(mask, ((0, 0), (0, -mask.shape[1] % COLUMN_MULTIPLE)))
    positions = np.concatenate([np.flatnonzero(widened), np.flatnonzero(~widened)])
    return positions.astype(np.int32).reshape(widened.shape)


def packed_specs(variant: Variant, *, rows: int, tokens: int, sequence: int) -> tuple[TensorSpecs, TensorSpecs]:
    """Return the shapes and dtypes of the inputs and of the outputs of a packed graph.

    Args:
        variant: Describes the graph.
        rows: Number of texts in the run.
        tokens: Number of tokens of all texts.
        sequence: Number of columns of `token_offset`.
    """
    sizes = {"batch": rows, "tokens": tokens, "sequence": sequence, "bounds": rows + 1}

    def specs(axes_by_name: Mapping[str, Sequence[str]], dtypes: Mapping[str, type[np.generic]]) -> TensorSpecs:
        return {
            name: ([sizes[axis] if axis in sizes else int(axis) for axis in axes], dtypes[name])
            for name, axes in axes_by_name.items()
        }

    input_dtypes = dict.fromkeys(variant.inputs, np.int64) | {"token_offset": np.int32, "cu_seqlens": np.int32}
    return specs(variant.inputs, input_dtypes), specs(variant.outputs, dict.fromkeys(variant.outputs, np.float32))


@dataclass(frozen=True, eq=False)
class Packing:
    """Pack the tokens of one micro-batch, and unpack what the graph computed for each of them.

    Attributes:
        mask: `(batch, sequence)` bool, true on tokens and false on padding; each row begins with a token.
    """

    mask: BoolArray

    def pack(self, rows: Mapping[str, Int64Array]) -> dict[str, NDArray[Any]]:
        """Return the inputs of a packed graph.

        Args:
            rows: Inputs of padded rows by name, each `(batch, sequence)` int64, or `(batch,)` for one value per row.

        Returns:
            Inputs without padding, each `(tokens,)` or `(batch,)` int64; `position_ids` `(tokens,)` int64;
            `token_offset` (see there); `cu_seqlens` `(batch + 1,)` int32, where each text begins, and at last the
            number of tokens.
        """
        packed: dict[str, NDArray[Any]] = {
            name: array[self.mask] if array.ndim > 1 else array
            for name, array in rows.items()
            if name != "attention_mask"
        }
        return packed | {
            "position_ids": np.nonzero(self.mask)[1],
            "token_offset": token_offset(self.mask),
            "cu_seqlens": np.cumsum([0, *self.mask.sum(axis=1)], dtype=np.int32),
        }

    def unpack(self, tokens: FloatArray) -> FloatArray:
        """Return one value per token, `(tokens, ...)`, as `(batch, sequence, ...)` with zeros in the padding."""
        rows: FloatArray = np.zeros((*self.mask.shape, *tokens.shape[1:]), tokens.dtype)
        rows[self.mask] = tokens
        return rows
