"""A bundle is scored as the literature scores the task."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from encort.export.evaluation import Evaluation
from encort.export.metrics import METRICS
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.errors import DatasetError


def score(metric: str, model: Any, labels: Sequence[Any], inputs: Sequence[Any] | None = None) -> float:
    """Return the metric in percent. Models that ignore their inputs need none."""
    inputs = [f"text {number}" for number in range(len(labels))] if inputs is None else inputs
    return Evaluation(task=Task.TEXT_CLASSIFICATION, metric=metric, inputs=inputs, labels=labels).score(model)


def giving(**results: Any) -> Any:
    """Return a model whose methods give these results for any input."""
    return SimpleNamespace(**{name: lambda _, result=result: result for name, result in results.items()})


def test_accuracy_is_the_share_of_right_labels() -> None:
    model = giving(classify=[SimpleNamespace(label=label) for label in "aabb"])
    assert score("accuracy", model, ["a", "b", "b", "b"]) == 75.0


def test_label_f1_is_the_micro_f1_of_scikit_learn() -> None:
    right = [{"a", "b"}, {"c"}, set(), {"a"}]
    predicted = [{"a"}, {"c", "b"}, {"a"}, {"a"}]
    model = giving(classify=[SimpleNamespace(above=lambda labels=labels: list(labels)) for labels in predicted])
    binary = MultiLabelBinarizer(classes=list("abc")).fit([list("abc")])
    reference = f1_score(binary.transform(right), binary.transform(predicted), average="micro")
    measured = score("micro F1", model, [frozenset(labels) for labels in right])
    assert measured == pytest.approx(100 * reference)
    assert measured == pytest.approx(100 * 2 * 3 / (4 + 5))


@pytest.mark.parametrize(
    ("predicted", "percent"),
    [
        ([[("who", 0, 7)], [("where", 3, 7)]], 100.0),
        ([[("who", 0, 3)], [("where", 3, 7)]], 50.0),
        ([[("where", 0, 7)], []], 0.0),
        ([[("who", 0, 7), ("who", 8, 9)], [("where", 3, 7)]], 80.0),
        ([[], []], 0.0),
    ],
    ids=["all right", "another place", "another label", "one too many", "none"],
)
def test_span_f1_counts_spans_of_the_right_place_and_label(predicted: list[Any], percent: float) -> None:
    spans = [[SimpleNamespace(label=label, start=start, end=end) for label, start, end in row] for row in predicted]
    labels = [frozenset({("who", 0, 7)}), frozenset({("where", 3, 7)})]
    assert score("span F1", giving(tag=spans), labels) == pytest.approx(percent)


def test_no_predicted_spans_are_right_where_nothing_is_tagged() -> None:
    assert score("span F1", giving(tag=[[], []]), [frozenset()] * 2) == 100.0


def test_regression_is_scored_by_spearman() -> None:
    random = np.random.default_rng(0)
    predicted, labels = random.normal(size=20).astype(np.float32), random.integers(0, 5, 20).astype(float).tolist()
    assert score("Spearman", giving(score=predicted), labels) == pytest.approx(100 * spearmanr(predicted, labels)[0])
    # Ranks count, not distances.
    assert score("Spearman", giving(score=np.array([1, 10, 99])), [1, 2, 3]) == pytest.approx(100)


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_correlation_with_equal_labels_is_not_defined() -> None:
    with pytest.raises(DatasetError, match="Spearman of the labelled data is not defined: its labels are all alike"):
        score("Spearman", giving(score=np.array([1.0, 2.0])), [3.0, 3.0])


def test_embeddings_are_scored_by_spearman_of_cosines() -> None:
    random = np.random.default_rng(1)
    # Vectors have many lengths, which do not change cosines.
    vectors = {text: random.normal(size=4) * random.uniform(0.1, 10) for text in "abcdefghij"}
    pairs = list(itertools.combinations("abcdefghij", 2))[:20]
    labels = random.uniform(size=20).tolist()
    model = SimpleNamespace(embed=lambda texts: np.array([vectors[text] for text in texts]))
    cosines = [vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]) for a, b in pairs]
    assert score("Spearman of cosines", model, labels, pairs) == pytest.approx(100 * spearmanr(cosines, labels)[0])


def test_embeddings_of_alike_pairs_are_scored_by_the_nearest_second_text() -> None:
    # The second text "q" is the longest vector, and "r" the nearest to "c".
    vectors = {"a": [1, 0], "b": [0, 1], "c": [1, 1], "p": [2, 0.1], "q": [0.5, 30], "r": [1, 1.1]}
    model = SimpleNamespace(embed=lambda texts: np.array([vectors[text] for text in texts], float))
    pairs = [("a", "p"), ("b", "q"), ("c", "r"), ("c", "p")]
    assert score("accuracy at 1", model, [second for _, second in pairs], pairs) == 75.0
    shared = [("a", "p"), ("a", "p"), ("b", "q")]
    assert score("accuracy at 1", model, [second for _, second in shared], shared) == 100.0


@pytest.mark.parametrize(
    ("answer", "right", "percent"),
    [
        ("the ann, lee!", ["Ann Lee Kim"], 80.0),
        ("Ann", ["Bob", "Ann Lee"], 100 * 2 / 3),
        ("", [], 100.0),
        ("Bob", [], 0.0),
        (None, [], 100.0),
        (None, ["Ann"], 0.0),
    ],
)
def test_the_best_answer_is_scored_by_its_words(answer: str | None, right: list[str], percent: float) -> None:
    results = [[] if answer is None else [SimpleNamespace(text=answer), SimpleNamespace(text="other")]]
    assert score("answer F1", giving(answer=results), [right]) == pytest.approx(percent)


def test_the_answer_score_is_the_mean_over_questions() -> None:
    results = [[SimpleNamespace(text="Ann")], [SimpleNamespace(text="Bob")]]
    assert score("answer F1", giving(answer=results), [["Ann"], ["Lee"]]) == 50.0


def test_every_metric_has_a_test() -> None:
    names = {"accuracy", "micro F1", "span F1", "Spearman", "Spearman of cosines", "accuracy at 1", "answer F1"}
    assert names == METRICS.keys()
