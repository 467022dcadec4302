"""Similarity of embeddings, and the order of documents."""

import numpy as np
import pytest

from encort.runtime.bundle.manifest import Similarity
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.tasks.similarity import best_first, similarities

FIRST = np.array([[3, 4], [0, 0]], np.float32)
SECOND = np.array([[3, 4], [4, -3], [0, 1]], np.float32)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Similarity.COSINE, [[1, 0, 0.8], [0, 0, 0]]),
        (Similarity.DOT, [[25, 0, 4], [0, 0, 0]]),
        (Similarity.EUCLIDEAN, [[0, -np.sqrt(50), -np.sqrt(18)], [-5, -5, -1]]),
        (Similarity.MANHATTAN, [[0, -8, -6], [-7, -7, -1]]),
    ],
)
def test_larger_is_more_similar(function: Similarity, expected: list[list[float]]) -> None:
    values = similarities(FIRST, SECOND, function)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, atol=1e-6)


@pytest.mark.parametrize("function", Similarity)
def test_no_embeddings_have_no_similarity(function: Similarity) -> None:
    assert similarities(FIRST[:0], SECOND, function).shape == (0, 3)
    assert similarities(FIRST, SECOND[:0], function).shape == (2, 0)


@pytest.mark.parametrize("function", Similarity)
def test_values_are_those_of_sentence_transformers(function: Similarity) -> None:
    util = pytest.importorskip("sentence_transformers.util")
    name = {Similarity.COSINE: "cos_sim", Similarity.DOT: "dot_score"}.get(function, f"{function}_sim")
    random = np.random.default_rng(0)
    first, second = (random.normal(size=(rows, 24)).astype(np.float32) for rows in (5, 7))
    np.testing.assert_allclose(
        similarities(first, second, function), getattr(util, name)(first, second).numpy(), atol=1e-5
    )


@pytest.mark.parametrize("function", Similarity)
@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.float16])
def test_embeddings_of_other_types_are_computed_in_float32(function: Similarity, dtype: type[np.generic]) -> None:
    first, second = (np.random.default_rng(rows).integers(0, 128, (rows, 384)).astype(dtype) for rows in (2, 3))
    first[:, 0] = 0
    values = similarities(first, second, function)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, similarities(first.astype(np.float32), second.astype(np.float32), function))


@pytest.mark.parametrize("shapes", [((2, 3), (2, 4)), ((3,), (2, 3)), ((2, 3), (3,))])
def test_embeddings_of_other_shapes_are_an_error(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    first, second = (np.ones(shape, np.float32) for shape in shapes)
    with pytest.raises(InputError, match="expected two tables of embeddings of one width"):
        similarities(first, second, Similarity.EUCLIDEAN)


def order(scores: list[float], top_k: int | None = None) -> list[int]:
    return [ranked.index for ranked in best_first(np.array(scores, np.float32), top_k=top_k)]


def test_the_best_document_is_first_and_equal_ones_keep_their_order() -> None:
    assert order([0.5, 2, 0.5, -1, 2]) == [1, 4, 0, 2, 3]
    assert order([0.5, 2, 0.5, -1, 2], top_k=3) == [1, 4, 0]
    assert order([0.5], top_k=9) == [0]
    assert order([]) == []


def test_scores_belong_to_their_documents() -> None:
    scores: FloatArray = np.array([0.25, 4, -2], np.float32)
    assert [(ranked.index, ranked.score) for ranked in best_first(scores, top_k=None)] == [(1, 4), (0, 0.25), (2, -2)]


def test_top_k_is_a_whole_number_above_zero() -> None:
    with pytest.raises(InputError, match="top_k must be at least 1"):
        order([1], top_k=0)
    with pytest.raises(InputTypeError, match="top_k must be a whole number"):
        order([1], top_k=1.5)  # type: ignore[arg-type]
