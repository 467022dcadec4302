"""Limits for the difference between a variant and eager PyTorch."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Embedding, Precision
from encort.runtime.common.arrays import FloatArray

COSINES = {
    Precision.FP32: (0.9999, 0.9999),
    Precision.FP16: (0.9995, 0.999),
    Precision.BF16: (0.9995, 0.998),
    Precision.INT8: (0.98, 0.9),
}
"""Least mean cosine and least single cosine of each precision. A graph below them is broken, whatever its options."""
COSINE_SLACK = 0.005
"""Largest fall of a cosine on another machine below the certified one, because other machines round differently."""


def error_limit(precision: Precision, output: str, embedding: Embedding | None) -> float:
    """Return the largest absolute difference that a value of an output may have.

    Lower precisions have no limit here: they are judged by cosines and by labelled data.

    Args:
        precision: Precision of the variant.
        output: Name of the output.
        embedding: How the bundle makes sentence embeddings; None: it makes none.
    """
    if precision is not Precision.FP32:
        return math.inf
    is_unit = output == SENTENCE_EMBEDDING and embedding is not None and embedding.normalize
    return 1e-5 if is_unit else 1e-4


def neighbour_limit(precision: Precision, output: str, embedding: Embedding | None) -> float:
    """Return the largest difference between the output of a text alone and its output among other texts.

    In float16, a GPU takes other kernels for other numbers of tokens, and they round differently. In 8 bits, ranges are
    static and products of integers are exact, so that the limit of fp32 holds.

    Args:
        precision: See `error_limit`.
        output: See `error_limit`.
        embedding: See `error_limit`.
    """
    exact = error_limit(Precision.FP32, output, embedding)
    return 500 * exact if precision is Precision.FP16 else exact


def cosines(first: Iterable[FloatArray], second: Iterable[FloatArray]) -> NDArray[np.float64]:
    """Return the cosine between each array and its partner, `(n,)` float64.

    Arrays are flattened to vectors. The cosine of single numbers is 1, because they have no direction.

    Args:
        first: Arrays.
        second: As many arrays, each of the same size as its partner.
    """
    return np.array([_cosine(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True)])


def _cosine(a: FloatArray, b: FloatArray) -> float:
    if a.size == 1:
        return 1.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
