"""Similarity of embeddings, and the order of documents by their scores."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Similarity
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import InputError
from encort.runtime.tasks.results import Ranked

_SMALLEST_NORM = 1e-12
"""Norms are at least this, as in PyTorch, so that a vector of zeros is similar to nothing."""


def best_first(scores: FloatArray, *, top_k: int | None) -> list[Ranked]:
    """Return the documents of some scores, the best first. Documents with equal scores keep their order.

    Args:
        scores: `(documents,)` float32.
        top_k: Most documents to return; None: all.

    Raises:
        InputTypeError: `top_k` is not a whole number.
        InputError: `top_k` is below 1.
    """
    count = len(scores) if top_k is None else check_whole("top_k", top_k, least=1)
    order = np.argsort(-scores, kind="stable")[:count]
    return [
        Ranked(index=index, score=score) for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]


def similarities(first: NDArray[Any], second: NDArray[Any], function: Similarity) -> FloatArray:
    """Return the similarity of every embedding to every other one, `(n, m)` float32.

    Args:
        first: `(n, dim)`, of any dtype of numbers; integers are not computed in their own dtype, where sums overflow.
        second: `(m, dim)`, of any dtype of numbers.
        function: The function that compares two embeddings.

    Raises:
        InputError: The embeddings are not two tables of one width.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise InputError(f"expected two tables of embeddings of one width, got shapes {first.shape} and {second.shape}")
    return _FUNCTIONS[function](first.astype(np.float32, copy=False), second.astype(np.float32, copy=False))


def _cosine(first: FloatArray, second: FloatArray) -> FloatArray:
    return _dot(_normalized(first), _normalized(second))


def _dot(first: FloatArray, second: FloatArray) -> FloatArray:
    product: FloatArray = first @ second.T
    return product


def _euclidean(first: FloatArray, second: FloatArray) -> FloatArray:
    return -_rows(first, lambda row: np.linalg.norm(row - second, axis=1), len(second))


def _manhattan(first: FloatArray, second: FloatArray) -> FloatArray:
    return -_rows(first, lambda row: np.abs(row - second).sum(axis=1), len(second))


def _rows(first: FloatArray, distances: Callable[[FloatArray], FloatArray], columns: int) -> FloatArray:
    """Return the distances of each embedding as a row. All differences at a time would take `n * m * dim` values."""
    return np.array([distances(row) for row in first], np.float32).reshape(len(first), columns)


def _normalized(embeddings: FloatArray) -> FloatArray:
    normalized: FloatArray = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), _SMALLEST_NORM)
    return normalized


_FUNCTIONS: Mapping[Similarity, Callable[[FloatArray, FloatArray], FloatArray]] = {
    Similarity.COSINE: _cosine,
    Similarity.DOT: _dot,
    Similarity.EUCLIDEAN: _euclidean,
    Similarity.MANHATTAN: _manhattan,
}
"""Functions by their name in the manifest; of the distances, the negative."""
