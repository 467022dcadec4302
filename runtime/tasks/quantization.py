"""Embeddings in fewer bytes: two bytes or one byte per value, or one bit per value.

Types and bytes are those of `quantize_embeddings` of sentence-transformers, so that the same indexes take them; it has
no float16.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_choice
from encort.runtime.common.errors import InputError

EmbeddingPrecision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
"""Precisions of embeddings. `float16` has two bytes per value. `int8` and `uint8` have one of 256 steps per value, and
`binary` and `ubinary` one bit per value, eight of them in an int8 or uint8."""

RANGED = ("int8", "uint8")
"""Precisions that need the range of each dimension."""

_STEPS = 255
_DEVIATIONS = 4.0
"""Standard deviations on each side of the mean that a range has. Of values with a normal distribution, 1 in 16,000 is
outside and gets the nearest end. Between the smallest and the largest of fifty values, 1 in 25 would be outside."""


def check_precision(precision: object) -> None:
    """Refuse a precision that embeddings cannot have.

    Raises:
        InputError: The message lists the precisions.
    """
    check_choice("precision", precision, get_args(EmbeddingPrecision))


def typical_ranges(embeddings: FloatArray) -> FloatArray:
    """Return the range of each dimension around the embeddings of some sample texts, `(2, dim)` float32.

    Args:
        embeddings: `(texts, dim)` float32, a few dozen texts at least.
    """
    values = embeddings.astype(np.float64)
    mean, width = values.mean(axis=0), _DEVIATIONS * values.std(axis=0)
    return np.stack([mean - width, mean + width]).astype(np.float32)


def quantize_embeddings(
    embeddings: FloatArray, precision: EmbeddingPrecision, ranges: FloatArray | None = None
) -> NDArray[Any]:
    """Return embeddings in a precision; see the top of this file.

    Args:
        embeddings: `(texts, dim)` float32.
        precision: See `EmbeddingPrecision`.
        ranges: For `int8` and `uint8`, the smallest and the largest value of each dimension, `(2, dim)` float32, such
            as `Model.embedding_ranges`; values outside get the nearest end. None: those of the given embeddings, so
            that a result depends on the other texts.

    Returns:
        `(texts, dim)` in float32, float16, int8 or uint8; or for bits `(texts, ceil(dim / 8))` in int8 or uint8.

    Raises:
        InputError: There is no such precision; or ranges would come from a single embedding.
    """
    check_precision(precision)
    if precision in RANGED and ranges is None:
        if len(embeddings) == 1:
            raise InputError(
                f"one embedding has no ranges for {precision}; give ranges, such as model.embedding_ranges"
            )
        ranges = np.stack([embeddings.min(axis=0), embeddings.max(axis=0)]) if len(embeddings) else embeddings[:2]
    return _QUANTIZERS[precision](embeddings, ranges)


def _steps(embeddings: FloatArray, ranges: FloatArray | None) -> FloatArray:
    """Return the number of the step of each value, from 0 to 255, in float32."""
    assert ranges is not None
    if not len(embeddings):
        return embeddings
    low, high = ranges.astype(np.float32, copy=False)
    width = (high - low) / _STEPS
    steps: FloatArray = np.clip(np.floor((embeddings - low) / np.where(width == 0, 1, width)), 0, _STEPS)
    return steps


def _bits(embeddings: FloatArray) -> NDArray[np.uint8]:
    return np.packbits(embeddings > 0, axis=-1)


_QUANTIZERS: Mapping[str, Callable[[FloatArray, FloatArray | None], NDArray[Any]]] = {
    "float32": lambda embeddings, _: embeddings.astype(np.float32, copy=False),
    "float16": lambda embeddings, _: embeddings.astype(np.float16),
    "int8": lambda embeddings, ranges: (_steps(embeddings, ranges) - 128).astype(np.int8),
    "uint8": lambda embeddings, ranges: _steps(embeddings, ranges).astype(np.uint8),
    "binary": lambda embeddings, _: (_bits(embeddings).astype(np.int16) - 128).astype(np.int8),
    "ubinary": lambda embeddings, _: _bits(embeddings),
}
