"""Heads without a softmax: several labels at once, or a number; and calls without texts."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.common.errors import CheckpointError, WrongTaskError

TEXTS = ["a", "", "my card is lost", "안녕하세요 😀 hello", "the card " * 100]
PAIRS = [
    ("my card", "is lost"),
    ("a", ""),
    ("안녕?", "hello 😀"),
    ("the card " * 60, "my pin"),
    ("pin", "the card " * 60),
]


def probabilities(results: Sequence[Any]) -> np.ndarray:
    return np.array([list(result.scores.values()) for result in results])


@pytest.fixture(scope="module")
def multi_label(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("bert", "text-classification", problem_type="multi_label_classification")


@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_each_label_of_a_multi_label_head_has_its_own_probability(
    multi_label: Path, bundle: Callable[[Path], Path], eager: Callable[..., SimpleNamespace], texts: list[Any]
) -> None:
    expected = eager(multi_label, texts).result.logits.sigmoid()
    with encort.load(bundle(multi_label)) as model:
        results = model.classify(texts)
    np.testing.assert_allclose(probabilities(results), expected, atol=1e-5, rtol=0)
    for threshold in (0.1, 0.5, 0.9):
        labels = [[f"class {number}" for number in (row >= threshold).nonzero()[:, 0]] for row in expected]
        assert [result.above(threshold) for result in results] == labels
    assert {len(result.above()) for result in results} - {0, 1}


def test_a_bundle_keeps_the_threshold_that_training_chose(
    checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], eager: Callable[..., SimpleNamespace]
) -> None:
    folder = checkpoint("bert", "text-classification", problem_type="multi_label_classification", threshold=0.4)
    expected = eager(folder, TEXTS).result.logits.sigmoid() >= 0.4
    with encort.load(bundle(folder)) as model:
        results = model.classify(TEXTS)
        assert model.head().threshold == 0.4
    assert [result.above() for result in results] == [
        [f"class {number}" for number in row.nonzero()[:, 0]] for row in expected
    ]
    assert any(result.above() != result.above(0.5) for result in results)


@pytest.mark.parametrize("threshold", [0, 1.0, -0.5, "high", True, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(
    checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], threshold: Any
) -> None:
    folder = checkpoint("bert", "text-classification", problem_type="multi_label_classification", threshold=threshold)
    with pytest.raises(CheckpointError, match=r"threshold in its config\.json is .*; it must be between 0 and 1"):
        bundle(folder)


@pytest.mark.parametrize("problem", [None, "regression"])
@pytest.mark.parametrize("texts", [TEXTS, PAIRS], ids=["texts", "pairs"])
def test_a_regression_gives_its_number_unchanged(
    checkpoint: Callable[..., Path],
    bundle: Callable[[Path], Path],
    eager: Callable[..., SimpleNamespace],
    problem: str | None,
    texts: list[Any],
) -> None:
    folder = checkpoint("bert", "text-classification", num_labels=1, problem_type=problem)
    with encort.load(bundle(folder)) as model:
        scores = model.score(texts)
        np.testing.assert_array_equal(model.predict(texts), scores)
        with pytest.raises(WrongTaskError, match="text-regression"):
            model.classify(texts)
    np.testing.assert_allclose(scores, eager(folder, texts).result.logits[:, 0], atol=1e-4, rtol=0)


def test_a_multi_label_head_may_have_a_single_label(
    checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], eager: Callable[..., SimpleNamespace]
) -> None:
    folder = checkpoint("bert", "text-classification", num_labels=1, problem_type="multi_label_classification")
    with encort.load(bundle(folder)) as model:
        scores = probabilities(model.classify(TEXTS))
    np.testing.assert_allclose(scores, eager(folder, TEXTS).result.logits.sigmoid(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("head", "method"),
    [
        ("text-classification", "classify"),
        ("token-classification", "tag"),
        ("question-answering", "answer"),
        ("next-sentence-prediction", "classify"),
    ],
)
def test_no_texts_give_no_results(
    checkpoint: Callable[..., Path], bundle: Callable[[Path], Path], head: str, method: str
) -> None:
    with encort.load(bundle(checkpoint("bert", head))) as model:
        assert getattr(model, method)([]) == []
