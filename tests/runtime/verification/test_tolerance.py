"""The tolerance depends on the output and the precision."""

import math

import numpy as np
import pytest

from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, Embedding, Pooling, Precision
from encort.runtime.verification.tolerance import cosines, error_limit

UNIT = Embedding(pooling=[Pooling.MEAN], normalize=True)
RAW = Embedding(pooling=[Pooling.MEAN], normalize=False)


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
def test_normalized_embeddings_have_a_smaller_limit(output: str, embedding: Embedding | None, limit: float) -> None:
    assert error_limit(Precision.FP32, output, embedding) == limit


def test_single_values_of_int8_have_no_limit() -> None:
    assert error_limit(Precision.INT8, SENTENCE_EMBEDDING, UNIT) == math.inf


def test_cosines_compare_each_row_with_its_partner() -> None:
    first = np.array([[1, 0], [1, 1], [2, 0]], np.float32)
    second = np.array([[3, 0], [1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [1, np.sqrt(0.5), -1])
