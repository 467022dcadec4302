"""Vectors of tokens, sparse embeddings, and the scores of documents by token vectors."""

from collections.abc import Sequence

import numpy as np

from encort.runtime.common.arrays import BoolArray, FloatArray, Int64Array
from encort.runtime.tasks.results import SparseEmbedding
from encort.runtime.text.token_batch import TokenBatch


def token_vectors(batch: TokenBatch, vectors: FloatArray, kept: BoolArray) -> list[FloatArray]:
    """Return the vectors of every text, each `(kept tokens, size)` float32.

    Args:
        batch: The tokens, one row per text.
        vectors: Vector of each token, `(tokens, size)` float32.
        kept: Which tokens give a vector, `(tokens,)` bool.
    """
    bounds = np.concatenate([[0], np.cumsum(kept)])[batch.cu_seqlens]
    return np.split(vectors[kept], bounds[1:-1]) if len(batch) else []


def max_sim(query: FloatArray, documents: Sequence[FloatArray]) -> FloatArray:
    """Return the score of each document, `(n,)` float32: for each vector of the query, its largest product, summed.

    Args:
        query: `(query tokens, size)` float32.
        documents: Each `(tokens, size)` float32. A document without vectors has the score 0.
    """
    scores = [(query @ document.T).max(axis=1).sum() if len(document) else 0 for document in documents]
    return np.array(scores, np.float32)


def sparse_embeddings(
    batch: TokenBatch, weights: FloatArray, skipped: Sequence[int], top_k: int | None
) -> list[SparseEmbedding]:
    """Return the sparse embedding of every text: the largest weight above 0 of each of its token ids.

    Args:
        batch: The tokens, one row per text.
        weights: Weight of each token, `(tokens,)` float32.
        skipped: Token ids without a weight.
        top_k: Most weights of a text, the largest ones; None: all.
    """
    counts = (weights > 0) & ~np.isin(batch.ids, skipped)
    embeddings = []
    for index, truncated in enumerate(batch.truncated.tolist()):
        row = slice(*batch.cu_seqlens[index : index + 2])
        indices, largest = _largest(batch.ids[row][counts[row]], weights[row][counts[row]])
        # Of equal weights, the smallest ids stay.
        chosen = np.sort(np.argsort(-largest, kind="stable")[:top_k])
        embeddings.append(SparseEmbedding(indices=indices[chosen], weights=largest[chosen], truncated=truncated))
    return embeddings


def vocabulary_embeddings(batch: TokenBatch, weights: FloatArray, top_k: int | None) -> list[SparseEmbedding]:
    """Return the sparse embedding of every text from the weights of all words.

    Args:
        batch: The tokens, one row per text, or one row per window of a text.
        weights: Weight of each word, `(rows, vocabulary)` float32. Of several windows, the largest weight is taken.
        top_k: Most weights of a text, the largest ones; None: all.
    """
    if batch.windows is not None:
        weights = np.maximum.reduceat(weights, np.flatnonzero(np.diff(batch.windows.texts, prepend=-1)))
    embeddings = []
    for row, truncated in zip(weights, batch.truncated_texts.tolist(), strict=True):
        indices = np.flatnonzero(row > 0)
        chosen = indices[np.sort(np.argsort(-row[indices], kind="stable")[:top_k])]
        embeddings.append(SparseEmbedding(indices=chosen, weights=row[chosen], truncated=truncated))
    return embeddings


def sparse_products(query: SparseEmbedding, documents: Sequence[SparseEmbedding]) -> FloatArray:
    """Return the dot product of a sparse embedding with each of others, `(n,)` float32."""
    products = []
    for document in documents:
        _, own, others = np.intersect1d(query.indices, document.indices, assume_unique=True, return_indices=True)
        products.append(query.weights[own] @ document.weights[others])
    return np.array(products, np.float32)


def _largest(ids: Int64Array, weights: FloatArray) -> tuple[Int64Array, FloatArray]:
    """Return the different ids, ascending, and the largest weight of each."""
    indices, inverse = np.unique(ids, return_inverse=True)
    largest = np.zeros(len(indices), np.float32)
    np.maximum.at(largest, inverse, weights)
    return indices, largest
