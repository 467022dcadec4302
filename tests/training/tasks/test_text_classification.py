import datasets
import numpy as np
import pytest

from encort.training.data.examples import Examples
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.text_classification import (
    MultiLabelClassification,
    TextClassification,
    TextRegression,
    correlations,
)

WORDS = {"card": "card", "pin": "pin", "hello": "greeting"}


def found_for(task, logits, expected, labels=()):
    """The scores of these logits."""
    examples = Examples(train=None, validation=None, labels=labels)
    return task.scores(np.array(logits, float), np.array(expected), None, None, examples)


@pytest.fixture
def pretrained(tiny_encoder):
    return Pretrained.open(str(tiny_encoder), TrainingSettings())


@pytest.fixture
def encode(pretrained):
    """`encode(task, rows, labels)`: the network's inputs."""

    def make(task, rows, labels=()):
        columns = {name: [row.get(name) for row in rows] for name in ("text", "text_pair", "label")}
        return task.encode(columns, pretrained, Examples(train=None, validation=None, labels=labels))

    return make


# One class a text.


def test_a_class_is_its_place_among_the_labels(encode, pretrained):
    rows = [{"text": "hello", "label": "b"}, {"text": "my card is lost", "label": "a"}]
    encoded = encode(TextClassification(), rows, ["a", "b"])
    expected = pretrained.saved_tokenizer(["hello", "my card is lost"])
    assert encoded == {**expected, "labels": [1, 0]}


def test_the_texts_of_a_pair_are_told_apart(encode, pretrained):
    rows = [{"text": "hello", "text_pair": "my card", "label": "a"}, {"text": "my", "text_pair": "pin", "label": "a"}]
    encoded = encode(TextClassification(), rows, ["a"])
    expected = pretrained.saved_tokenizer(["hello", "my"], ["my card", "pin"])
    assert {name: encoded[name] for name in expected} == expected
    assert 1 in encoded["token_type_ids"][0]


def test_scores_of_classes():
    logits = np.eye(3)[[0, 0, 1, 1, 2]]
    found = found_for(TextClassification(), logits, [0, 0, 0, 1, 1], ["a", "b", "c"])
    # a: 2 of 2 found are right, of 3; b: 1 of 2 found is right, of 2; c is never right.
    assert found.metrics == {"accuracy": pytest.approx(3 / 5), "macro_f1": pytest.approx((0.8 + 0.5) / 2)}
    assert found.confusion.tolist() == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert list(found.by_label) == ["a", "b", "c"]
    assert found.by_label["a"] == {
        "precision": 1,
        "recall": pytest.approx(2 / 3),
        "f1-score": pytest.approx(0.8),
        "support": 3,
    }
    assert found.by_label["c"]["support"] == 0


def test_pairs_are_learned(train_tiny, write):
    """What the second text is decides alone."""
    rows = "".join(f"{first},{word},{label}\n" for _ in range(12) for first in WORDS for word, label in WORDS.items())
    file = write("pairs.csv", f"text,text_pair,label\n{rows}")
    run = train_tiny(train=file, validation=file, epochs=4, batch_size=6)
    assert run.report.metrics["validation"]["accuracy"] == 1
    assert run.report.rows == {"train": 108, "validation": 108}


# Several labels a text.


def test_labels_are_a_row_of_truth_values(encode):
    rows = [{"text": "hello", "label": ["c", "a"]}, {"text": "hello", "label": []}]
    encoded = encode(MultiLabelClassification(), rows, ["a", "b", "c"])
    assert encoded["labels"] == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


def test_scores_of_several_labels():
    expected = [[1, 0, 1], [1, 1, 0], [0, 0, 0]]
    logits = [[2, -1, 3], [1, -2, 0.5], [-1, -1, 0]]  # 0 is one half, which is not above it
    found = found_for(MultiLabelClassification(), logits, expected, ["a", "b", "c"])
    assert found.metrics == {
        "micro_f1": pytest.approx(2 * 3 / (2 * 3 + 1 + 1)),
        "macro_f1": pytest.approx((1 + 0 + 2 / 3) / 3),
        "accuracy": pytest.approx(2 / 3),
    }
    assert [row["support"] for row in found.by_label.values()] == [2, 1, 1]
    assert found.by_label["c"]["precision"] == 0.5
    assert found.confusion is None


def test_scores_of_one_label_are_of_having_it():
    found = found_for(MultiLabelClassification(), [[1], [-1], [-1], [-1]], [[1], [1], [0], [0]], ["spam"])
    assert found.by_label["spam"] == pytest.approx({"precision": 1, "recall": 0.5, "f1-score": 2 / 3, "support": 2})
    assert found.metrics["micro_f1"] == pytest.approx(2 / 3)


def test_several_labels_are_learned(trained_labels):
    report = trained_labels.report
    assert report.metrics["validation"].keys() == {"micro_f1", "macro_f1", "accuracy"}
    assert report.metrics["validation"]["micro_f1"] > 0.9
    assert report.label_counts == {"card_lost": 80, "change_pin": 80, "greeting": 120}
    assert report.labels == ["card_lost", "change_pin", "greeting"]
    assert report.rows == {"train": 240, "validation": 6}
    assert trained_labels.config["problem_type"] == "multi_label_classification"
    assert trained_labels.trainer.args.metric_for_best_model == "micro_f1"


# A number a text.


def test_numbers_are_learned_as_they_are(encode):
    assert encode(TextRegression(), [{"text": "hello", "label": -2.5}])["labels"] == [-2.5]


def test_scores_of_numbers():
    found = found_for(TextRegression(), [[1], [2], [3], [10]], [1, 2, 3, 4])
    assert found.metrics == {
        "spearman": pytest.approx(1),
        "pearson": pytest.approx(np.corrcoef([1, 2, 3, 10], [1, 2, 3, 4])[0, 1]),
    }


@pytest.mark.parametrize("pair", [([1, 1], [1, 2]), ([1, 2], [3, 3]), ([1], [1])])
def test_what_never_changes_is_like_nothing(pair):
    assert correlations(*map(np.array, pair)) == {"spearman": 0.0, "pearson": 0.0}


def test_a_number_is_learned(trained_scores):
    report, config = trained_scores.report, trained_scores.config
    assert report.metrics["validation"]["pearson"] > 0.95
    assert (config["problem_type"], config["id2label"]) == ("regression", {"0": "score"})
    assert (report.labels, report.label_counts) == (["score"], {})
    assert trained_scores.trainer.args.metric_for_best_model == "spearman"
    assert not (trained_scores.folder / "confusion.svg").exists()


def test_a_checkpoint_of_another_task_is_begun_with(train_tiny, trained_labels):
    run = train_tiny(model=trained_labels.folder, epochs=1, batch_size=20)
    assert run.config["problem_type"] == "single_label_classification"
    assert run.report.metrics["validation"]["accuracy"] == 1


def test_a_new_regression_begins_at_the_mean_of_the_scores(pretrained):
    rows = datasets.Dataset.from_dict({"label": [1.0, 2.0, 6.0]})
    network = TextRegression().network(pretrained, Examples(train=rows, validation=rows, labels=["score"]))
    assert network.classifier.bias.tolist() == [3]
