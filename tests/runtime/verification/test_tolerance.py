"""How far is too far, by output and precision."""

import math

import numpy as np
import pytest

from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Embedding, Pooling, Precision
from encort.runtime.verification.tolerance import cosines, error_limit

UNIT = Embedding(pooling=Pooling.MEAN, normalize=True)
RAW = Embedding(pooling=Pooling.MEAN, normalize=False)


@pytest.mark.parametrize(
    ("output", "embedding", "limit"),
    [
        (SENTENCE_EMBEDDING, UNIT, 1e-5),
        (SENTENCE_EMBEDDING, RAW, 1e-4),
        ("last_hidden_state", UNIT, 1e-4),
        ("logits", UNIT, 1e-4),
        ("logits", None, 1e-4),
    ],
)
def test_embeddings_of_length_1_are_judged_more_strictly(output, embedding, limit):
    assert error_limit(Precision.FP32, output, embedding) == limit


def test_no_single_value_of_eight_bits_is_judged():
    assert error_limit(Precision.INT8, SENTENCE_EMBEDDING, UNIT) == math.inf


def test_cosines_are_those_of_each_row_with_its_partner():
    first = np.array([[1, 0], [1, 1], [2, 0]], np.float32)
    second = np.array([[3, 0], [1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [1, np.sqrt(0.5), -1])
