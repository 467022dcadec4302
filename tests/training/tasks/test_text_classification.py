"""Classifiers and regressions: targets, scores and learning."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from encort.training.data.examples import Examples
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tasks.text_classification import (
    MultiLabelClassification,
    TextClassification,
    TextRegression,
    best_threshold,
    correlations,
)

Run = Any  # of tests/training/conftest.py, which cannot be imported
Write = Callable[..., Path]
Encode = Callable[..., dict[str, list[Any]]]

WORDS = {"card": "card", "pin": "pin", "hello": "greeting"}


def scores_of(task: TrainingTask, logits: Any, expected: Any, labels: Sequence[str] = ()) -> Scores:
    """Return the scores of these logits."""
    examples = Examples(train=None, validation=None, labels=labels)
    return task.scores(np.array(logits, float), np.array(expected), None, None, examples)


@pytest.fixture
def pretrained(tiny_encoder: Path) -> Pretrained:
    return Pretrained.open(str(tiny_encoder), TrainingSettings())


@pytest.fixture
def encode(pretrained: Pretrained) -> Encode:
    """`encode(task, rows, labels)`: the network's inputs."""

    def make(task: TrainingTask, rows: Any, labels: Sequence[str] = ()) -> dict[str, list[Any]]:
        columns = {name: [row.get(name) for row in rows] for name in ("text", "text_pair", "label")}
        return task.encode(columns, pretrained, Examples(train=None, validation=None, labels=labels))

    return make


# One label per text.


def test_a_label_becomes_its_number(encode: Encode, pretrained: Pretrained) -> None:
    rows = [{"text": "hello", "label": "b"}, {"text": "my card is lost", "label": "a"}]
    encoded = encode(TextClassification(), rows, ["a", "b"])
    expected = pretrained.saved_tokenizer(["hello", "my card is lost"])
    assert encoded == {**expected, "labels": [1, 0]}


def test_the_texts_of_a_pair_are_told_apart(encode: Encode, pretrained: Pretrained) -> None:
    rows = [{"text": "hello", "text_pair": "my card", "label": "a"}, {"text": "my", "text_pair": "pin", "label": "a"}]
    encoded = encode(TextClassification(), rows, ["a"])
    expected = pretrained.saved_tokenizer(["hello", "my"], ["my card", "pin"])
    assert {name: encoded[name] for name in expected} == expected
    assert 1 in encoded["token_type_ids"][0]


def test_scores_of_classes_are_counted_by_label() -> None:
    logits = np.eye(3)[[0, 0, 1, 1, 2]]
    scores = scores_of(TextClassification(), logits, [0, 0, 0, 1, 1], ["a", "b", "c"])
    # a: 2 of 2 found are right, of 3; b: 1 of 2 found is right, of 2; c is never right.
    assert scores.metrics == {"accuracy": pytest.approx(3 / 5), "macro_f1": pytest.approx((0.8 + 0.5) / 2)}
    assert scores.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert list(scores.by_label) == ["a", "b", "c"]
    assert scores.by_label["a"] == {
        "precision": 1,
        "recall": pytest.approx(2 / 3),
        "f1-score": pytest.approx(0.8),
        "support": 3,
    }
    assert scores.by_label["c"]["support"] == 0


def test_pairs_are_learned_where_the_second_text_decides(train_tiny: Callable[..., Run], write: Write) -> None:
    rows = "".join(f"{first},{word},{label}\n" for _ in range(12) for first in WORDS for word, label in WORDS.items())
    file = write("pairs.csv", f"text,text_pair,label\n{rows}")
    run = train_tiny(train=file, validation=file, epochs=4, batch_size=6)
    assert run.report.metrics["validation"]["accuracy"] == 1
    assert run.report.rows == {"train": 108, "validation": 108}


# Several labels per text.


def test_several_labels_become_a_row_of_zeros_and_ones(encode: Encode) -> None:
    rows = [{"text": "hello", "label": ["c", "a"]}, {"text": "hello", "label": []}]
    encoded = encode(MultiLabelClassification(), rows, ["a", "b", "c"])
    assert encoded["labels"] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_scores_of_several_labels_are_counted_over_all_of_them() -> None:
    expected = [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    logits = [[2, -1, 3], [1, -2, 0], [-1, -1, -0.1]]  # 0 is one half, which is enough
    scores = scores_of(MultiLabelClassification(threshold=0.5), logits, expected, ["a", "b", "c"])
    assert scores.metrics == {
        "micro_f1": pytest.approx(2 * 3 / (2 * 3 + 1 + 1)),
        "macro_f1": pytest.approx((1 + 0 + 2 / 3) / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    assert [row["support"] for row in scores.by_label.values()] == [2, 1, 1]
    assert scores.by_label["c"]["precision"] == 0.5
    assert scores.confusion is None


def test_the_scores_of_a_single_label_count_the_texts_that_have_it() -> None:
    scores = scores_of(MultiLabelClassification(), [[1], [-1], [-1], [-1]], [[1], [1], [0], [0]], ["spam"])
    assert scores.by_label["spam"] == pytest.approx({"precision": 1, "recall": 0.5, "f1-score": 2 / 3, "support": 2})
    assert scores.metrics["micro_f1"] == pytest.approx(2 / 3)


def test_several_labels_are_learned(trained_labels: Run) -> None:
    report = trained_labels.report
    assert report.metrics["validation"].keys() == {"micro_f1", "macro_f1", "accuracy"}
    assert report.metrics["validation"]["micro_f1"] > 0.9
    assert report.label_counts == {"card_lost": 80, "change_pin": 80, "greeting": 120}
    assert report.labels == ["card_lost", "change_pin", "greeting"]
    assert report.rows == {"train": 240, "validation": 6}
    assert trained_labels.config["problem_type"] == "multi_label_classification"
    assert 0 < trained_labels.config["threshold"] < 1
    assert trained_labels.trainer.args.metric_for_best_model == "micro_f1"


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_with_the_best_f1_is_found(seed: int) -> None:
    random = np.random.default_rng(seed)
    probabilities = random.random((12, 3)).round(1).astype(np.float32)  # with equal ones
    targets = (random.random((12, 3)) < probabilities**2).astype(int)

    def f1(threshold: float) -> float:
        predicted = probabilities >= threshold
        return 2 * (predicted & (targets == 1)).sum() / max(1, predicted.sum() + targets.sum())

    threshold = best_threshold(probabilities, targets)
    tried = [*np.linspace(0.001, 0.999, 999)]
    assert f1(threshold) == pytest.approx(max(map(f1, tried)))
    assert abs(threshold - 0.5) <= min(abs(t - 0.5) for t in tried if f1(t) == f1(threshold)) + 0.051


def test_a_threshold_is_one_half_if_no_other_is_better() -> None:
    assert best_threshold(np.array([[0.9, 0.1]], np.float32), np.array([[1, 0]])) == 0.5
    assert best_threshold(np.array([[0.9, 0.1]], np.float32), np.array([[0, 0]])) == 0.5
    assert 0 < best_threshold(np.array([[1.0, 0.0]], np.float32), np.array([[1, 1]])) < 1


def test_the_threshold_of_the_validation_data_decides() -> None:
    """All logits are too low for one half."""
    examples = Examples(train=None, validation=None, labels=["a", "b"])
    logits = np.array([[-1.0, -3.0], [-3.0, -1.0]])
    rows = datasets.Dataset.from_dict({"label": [["a"], ["b"]]})
    task = MultiLabelClassification().decide(logits, rows, None, examples)
    assert task.threshold is not None
    assert 1 / (1 + np.exp(3)) < task.threshold < 1 / (1 + np.exp(1))
    assert scores_of(task, logits, [[1, 0], [0, 1]], ["a", "b"]).metrics["micro_f1"] == 1
    assert scores_of(MultiLabelClassification(threshold=0.5), logits, [[1, 0], [0, 1]], "ab").metrics["micro_f1"] == 0
    assert task.decide(-logits, rows, None, examples) is task


# A number per text.


def test_numbers_are_learned_as_they_are(encode: Encode) -> None:
    assert encode(TextRegression(), [{"text": "hello", "label": -2.5}])["labels"] == [-2.5]


def test_scores_of_numbers_are_correlations() -> None:
    scores = scores_of(TextRegression(), [[1], [2], [3], [10]], [1, 2, 3, 4])
    assert scores.metrics == {
        "spearman": pytest.approx(1),
        "pearson": pytest.approx(np.corrcoef([1, 2, 3, 10], [1, 2, 3, 4])[0, 1]),
    }


@pytest.mark.parametrize("pair", [([1, 1], [1, 2]), ([1, 2], [3, 3]), ([1], [1])])
def test_constant_numbers_have_no_correlation(pair: tuple[list[float], list[float]]) -> None:
    assert correlations(*map(np.array, pair)) == {"spearman": 0.0, "pearson": 0.0}


def test_a_number_is_learned(trained_scores: Run) -> None:
    report, config = trained_scores.report, trained_scores.config
    assert report.metrics["validation"]["pearson"] > 0.95
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "score"})
    assert (report.labels, report.label_counts) == (["score"], {})
    assert trained_scores.trainer.args.metric_for_best_model == "spearman"
    assert not (trained_scores.folder / "confusion.svg").exists()


def test_a_checkpoint_of_another_task_can_be_trained_further(
    train_tiny: Callable[..., Run], trained_labels: Run
) -> None:
    run = train_tiny(model=trained_labels.folder, epochs=1, batch_size=20)
    assert run.config["problem_type"] == "single_label_classification"
    assert run.report.metrics["validation"]["accuracy"] == 1


def test_a_new_regression_starts_at_the_mean_of_the_scores(pretrained: Pretrained) -> None:
    rows = datasets.Dataset.from_dict({"label": [1.0, 2.0, 6.0]})
    network = TextRegression().network(pretrained, Examples(train=rows, validation=rows, labels=["score"]))
    assert network.classifier.bias.tolist() == [3]
