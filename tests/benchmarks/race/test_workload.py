from pathlib import Path

import numpy as np

from encort.benchmarks.race.models import operations
from encort.benchmarks.race.workload import mixed_texts, scored_pairs


def test_the_workload_is_deterministic_and_mixed_in_length() -> None:
    texts = mixed_texts()
    assert texts == mixed_texts()
    assert len(texts) == 1820
    words = sorted(len(text.split()) for text in texts)
    assert words[910] < 16
    assert words[1729] > 80
    assert not set(texts[:100]) <= set(sorted(texts)[:200])


def test_scored_pairs_are_complete() -> None:
    first, second, scores = scored_pairs()
    assert len(first) == len(second) == len(scores) == 1500
    assert 0 <= min(scores) < max(scores) <= 5


def test_operations_are_those_of_the_matrix_products(encoder_checkpoint: Path) -> None:
    hidden, inner, layers = 40, 72, 3  # of the tiny encoder
    per_token = 2 * layers * (4 * hidden**2 + 2 * hidden * inner)
    attention = 2 * layers * 2 * hidden * (5**2 + 7**2)
    assert operations(encoder_checkpoint, np.array([5, 7])) == 12 * per_token + attention
