"""How far a variant may be from eager PyTorch."""

import math

import numpy as np
from numpy.typing import NDArray

from encort.runtime.manifest import SENTENCE_EMBEDDING, Embedding, Precision

COSINE_SLACK = 0.005
"""How much smaller a cosine may be on another machine than certified: rounding falls otherwise there."""


def error_limit(precision: Precision, output: str, embedding: Embedding | None) -> float:
    """Largest absolute difference of an output.

    Eight bits are judged by cosines and by what labelled data says, not by single values.
    """
    if precision is not Precision.FP32:
        return math.inf
    is_unit = output == SENTENCE_EMBEDDING and embedding is not None and embedding.normalize
    return 1e-5 if is_unit else 1e-4


def cosines(first: NDArray[np.floating], second: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of each row with its partner, `(n,)`; arrays `(n, ...)` are taken as `n` vectors."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (first, second))
    result: NDArray[np.float64] = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return result
