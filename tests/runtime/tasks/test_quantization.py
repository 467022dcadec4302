"""Embeddings in fewer bytes have the types and bytes of sentence-transformers."""

import numpy as np
import pytest

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError
from encort.runtime.tasks.quantization import EmbeddingPrecision, quantize_embeddings, typical_ranges

PRECISIONS: list[EmbeddingPrecision] = ["float32", "int8", "uint8", "binary", "ubinary"]
DTYPES = {"float32": np.float32, "int8": np.int8, "uint8": np.uint8, "binary": np.int8, "ubinary": np.uint8}


@pytest.fixture(scope="module")
def embeddings() -> FloatArray:
    """200 embeddings of 20 values, with a dimension that never changes and one of zeros."""
    values = np.random.default_rng(0).normal(size=(200, 20)).astype(np.float32)
    values[:, 3], values[:, 7] = 0.25, 0
    return values


def test_int8_has_256_steps_between_the_ends_of_a_range() -> None:
    ranges = np.array([[-255.0, 0.0], [255.0, 255.0]], np.float32)
    values = np.array([[-255.0, 0.0], [255.0, 255.0], [-999.0, 300.0], [0.0, 10.9]], np.float32)
    steps = [[0, 0], [255, 255], [0, 255], [127, 10]]
    assert quantize_embeddings(values, "uint8", ranges).tolist() == steps
    assert quantize_embeddings(values, "int8", ranges).tolist() == (np.array(steps) - 128).tolist()


def test_bits_are_the_signs_eight_in_a_byte() -> None:
    values = np.array([[1, -1, 1, 0, 0, 0, 0, 2, 3, -3]], np.float32)
    assert quantize_embeddings(values, "ubinary").tolist() == [[0b10100001, 0b10000000]]
    assert quantize_embeddings(values, "binary").tolist() == [[0b10100001 - 128, 0]]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_results_are_those_of_sentence_transformers(precision: EmbeddingPrecision, embeddings: FloatArray) -> None:
    theirs = pytest.importorskip("sentence_transformers.util").quantize_embeddings
    ranges = np.stack([embeddings[:50].min(axis=0), embeddings[:50].max(axis=0)])
    for given in (ranges, None):
        ours, expected = quantize_embeddings(embeddings, precision, given), theirs(embeddings, precision, ranges=given)
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_embeddings_have_the_type_and_the_width_too(precision: EmbeddingPrecision, embeddings: FloatArray) -> None:
    full, none = quantize_embeddings(embeddings, precision), quantize_embeddings(embeddings[:0], precision)
    assert none.shape == (0, full.shape[1])
    assert none.dtype == full.dtype == DTYPES[precision]


def test_one_embedding_has_no_ranges_of_its_own(embeddings: FloatArray) -> None:
    with pytest.raises(InputError, match="one embedding has no ranges for int8"):
        quantize_embeddings(embeddings[:1], "int8")


def test_an_unknown_precision_is_an_error(embeddings: FloatArray) -> None:
    with pytest.raises(
        InputError, match="precision must be one of float32, float16, int8, uint8, binary, ubinary; got 'int4'"
    ):
        quantize_embeddings(embeddings, "int4")  # type: ignore[arg-type]


def test_typical_ranges_hold_nearly_all_values_and_waste_few_steps(embeddings: FloatArray) -> None:
    ranges = typical_ranges(embeddings[:50])
    assert (ranges.shape, ranges.dtype) == ((2, 20), np.float32)
    others = embeddings[50:]
    assert ((others < ranges[0]) | (others > ranges[1])).mean() < 0.002
    steps = quantize_embeddings(others, "uint8", ranges).astype(np.float32)
    restored = ranges[0] + (steps + 0.5) * (ranges[1] - ranges[0]) / 255
    assert np.abs(restored - others).max() < 0.06, "a step has 8/255 standard deviations"
    assert ranges[0, 3] == ranges[1, 3] == 0.25
