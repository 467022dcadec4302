"""Logits become classifications: plain, frozen values."""

import dataclasses
import json

import numpy as np
import pytest

from encort.runtime.tasks.classification import classifications, sigmoid, softmax
from encort.runtime.tasks.results import Classification
from encort.runtime.text.token_batch import TokenBatch


def batch(lengths: list[int], truncated: list[bool]) -> TokenBatch:
    zeros = np.zeros(sum(lengths), np.int64)
    return TokenBatch(
        ids=zeros, type_ids=zeros, cu_seqlens=np.cumsum([0, *lengths]), truncated=np.array(truncated, np.bool_)
    )


@pytest.fixture
def results() -> list[Classification]:
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.05, 0.05, 0.9]], np.float32))
    return classifications(logits, ["a", "b", "c"], batch([4, 9], [False, True]), probabilities=softmax)


def test_the_label_is_the_most_probable_one(results: list[Classification]) -> None:
    assert [result.label for result in results] == ["a", "c"]
    assert [result.score for result in results] == pytest.approx([0.7, 0.9])


def test_scores_are_in_the_order_of_the_labels(results: list[Classification]) -> None:
    assert list(results[1].scores) == ["a", "b", "c"]
    assert list(results[1].scores.values()) == pytest.approx([0.05, 0.05, 0.9])


def test_every_text_has_its_own_tokens_and_truncation(results: list[Classification]) -> None:
    assert [(result.tokens, result.truncated) for result in results] == [(4, False), (9, True)]


def test_results_are_plain_json(results: list[Classification]) -> None:
    assert json.loads(json.dumps(dataclasses.asdict(results[0])))["label"] == "a"
    assert [type(value) for value in dataclasses.astuple(results[0])] == [str, float, dict, int, bool, float]


def test_results_are_frozen(results: list[Classification]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        results[0].label = "b"


def test_no_logits_give_no_results() -> None:
    assert classifications(np.empty((0, 3), np.float32), ["a", "b", "c"], batch([], []), probabilities=softmax) == []


def test_softmax_equals_the_formula() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_allclose(softmax(logits), np.exp(logits) / np.exp(logits).sum(1, keepdims=True), rtol=1e-5)
    assert softmax(logits).dtype == np.float32


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_softmax_of_large_logits_does_not_overflow_or_vanish(shift: float) -> None:
    logits = np.array([[0, 1, 2]], np.float32)
    np.testing.assert_allclose(softmax(logits + np.float32(shift)), softmax(logits), rtol=1e-3)


def test_sigmoid_equals_the_formula_and_does_not_overflow() -> None:
    logits = np.array([[-3, 0, 3], [-1e4, 0, 1e4]], np.float32)
    expected = [[1 / (1 + np.exp(3)), 0.5, 1 / (1 + np.exp(-3))], [0, 0.5, 1]]
    np.testing.assert_allclose(sigmoid(logits), expected, atol=1e-6)
    assert sigmoid(logits).dtype == np.float32
