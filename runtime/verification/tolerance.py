"""How far a variant may be from eager PyTorch."""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Embedding, Precision
from encort.runtime.common.arrays import FloatArray

COSINES = {Precision.FP32: (0.9999, 0.9999), Precision.FP16: (0.9995, 0.999), Precision.INT8: (0.98, 0.9)}
"""Mean and smallest cosine below which a graph of a precision is broken, whatever was asked of it."""
COSINE_SLACK = 0.005
"""How much smaller a cosine may be on another machine than certified: rounding falls otherwise there."""


def error_limit(precision: Precision, output: str, embedding: Embedding | None) -> float:
    """Largest absolute difference of an output.

    Lower precisions are judged by cosines and by what labelled data says, not by single values.
    """
    if precision is not Precision.FP32:
        return math.inf
    is_unit = output == SENTENCE_EMBEDDING and embedding is not None and embedding.normalize
    return 1e-5 if is_unit else 1e-4


def neighbour_limit(precision: Precision, output: str, embedding: Embedding | None) -> float:
    """Largest change of a text's output with its neighbours.

    In float16 the kernels of a GPU differ with the number of tokens, and round differently; ranges of 8 bits are
    static, and products of whole numbers exact.
    """
    exact = error_limit(Precision.FP32, output, embedding)
    return 500 * exact if precision is Precision.FP16 else exact


def cosines(first: Iterable[FloatArray], second: Iterable[FloatArray]) -> NDArray[np.float64]:
    """Cosine of each array with its partner, `(n,)`, both taken as vectors; 1 for single numbers, without direction."""
    return np.array([_cosine(a.ravel(), b.ravel()) for a, b in zip(first, second, strict=True)])


def _cosine(a: FloatArray, b: FloatArray) -> float:
    if a.size == 1:
        return 1.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
