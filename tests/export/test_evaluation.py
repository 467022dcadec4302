"""Labelled data is read as users keep it, and scored as the literature scores it."""

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score
from sklearn.preprocessing import MultiLabelBinarizer

from encort.export.evaluation import LEAST_EXAMPLES, Evaluation
from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.errors import DatasetError

TAGS = ["O", "B-who", "I-who", "B-where"]


def head(task, labels=("a", "b")):
    return HeadInfo(name="h", task=task, labels=list(labels), outputs=["logits"])


CLASSES, MANY = head(Task.TEXT_CLASSIFICATION), head(Task.MULTI_LABEL_CLASSIFICATION, "abc")
NUMBER, TAGGER = head(Task.TEXT_REGRESSION, ["score"]), head(Task.TOKEN_CLASSIFICATION, TAGS)
READER = head(Task.QUESTION_ANSWERING, [])


@pytest.fixture
def write(tmp_path):
    """`write(name, rows)` makes a table of dicts, or a file of that content."""

    def make(name, content):
        file = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        file.write_text(content, encoding="utf-8")
        return file

    return make


def repeated(*rows):
    return list(itertools.islice(itertools.cycle(rows), 12))


# Reading.


@pytest.mark.parametrize(
    ("head", "rows", "inputs", "labels"),
    [
        (CLASSES, [{"text": "x", "label_text": "a"}, {"text": "y", "label": "b"}], ["x", "y"], ["a", "b"]),
        (CLASSES, [{"text": "x", "text_pair": "z", "label": "b", "label_text": "a"}], [("x", "z")], ["a"]),
        (
            head(Task.NEXT_SENTENCE_PREDICTION, ["next", "far"]),
            [{"text": "x", "text_pair": "z", "label": "far"}],
            [("x", "z")],
            ["far"],
        ),
        (CLASSES, [{"text": "x", "text_pair": None, "label": "a"}], ["x"], ["a"]),
        (MANY, [{"text": "x", "labels": ["a", "c"]}, {"text": "y", "labels": []}], ["x", "y"], [{"a", "c"}, set()]),
        (NUMBER, [{"text": "x", "score": 2}, {"text": "y", "label": "0.5"}], ["x", "y"], [2.0, 0.5]),
        (None, [{"text": "x", "text_pair": "y", "score": 0}], [("x", "y")], [0.0]),
        (
            TAGGER,
            [{"tokens": ["Ann", "Lee", "met", "Bob"], "tags": ["B-who", "I-who", "O", "B-who"]}],
            ["Ann Lee met Bob"],
            [{("who", 0, 7), ("who", 12, 15)}],
        ),
        (
            READER,
            [{"question": "q", "context": "c", "answers": {"text": ["1", "2"], "answer_start": [0, 3]}}],
            [("q", "c")],
            [["1", "2"]],
        ),
        (READER, [{"question": "q", "context": "c", "answers": ["1"]}], [("q", "c")], [["1"]]),
        (READER, [{"question": "q", "context": "c", "answers": "1"}], [("q", "c")], [["1"]]),
    ],
)
def test_rows_become_inputs_and_labels(write, head, rows, inputs, labels):
    found = Evaluation.read(write("data.jsonl", repeated(*rows)), head)
    assert list(found.inputs[: len(rows)]) == inputs
    assert list(found.labels[: len(rows)]) == labels
    assert (len(found.inputs), len(found.labels)) == (12, 12)
    assert found.task == (Task.FEATURE_EXTRACTION if head is None else head.task)


def test_csv_is_read_with_its_quotes(write):
    rows = "".join(f'"number {number}, said ""x""",b\n' for number in range(10))
    found = Evaluation.read(write("data.csv", f"text,label\n{rows}"), CLASSES)
    assert found.inputs[3] == 'number 3, said "x"'
    assert set(found.labels) == {"b"}


def test_conll_is_read_by_its_first_and_last_column(write):
    sentence = "Ann NNP B-who\nLee NNP I-who\nin IN O\nRome NNP B-where\n"
    file = write("data.CONLL", "\n" + "\n \n".join([sentence] * 11) + "\n\n")
    found = Evaluation.read(file, TAGGER)
    assert list(found.inputs) == ["Ann Lee in Rome"] * 11
    assert list(found.labels) == [{("who", 0, 7), ("where", 11, 15)}] * 11


def test_squad_is_read_with_its_unanswerable_questions(write):
    questions = [
        {"question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}, {"text": "Ann Lee", "answer_start": 0}]},
        {"question": "Why?", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": "Ann Lee came.", "qas": questions}] * 3
    file = write("data.json", json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}] * 2}))
    found = Evaluation.read(file, READER)
    assert list(found.inputs) == [("Who?", "Ann Lee came."), ("Why?", "Ann Lee came.")] * 6
    assert list(found.labels) == [["Ann", "Ann Lee"], []] * 6


def test_texts_to_be_timed_come_evenly_from_all(write):
    rows = [{"text": str(number), "label": "ab"[number % 2]} for number in range(11)]
    examples = Evaluation.read(write("data.jsonl", rows), CLASSES)
    assert examples.texts(3) == ["0", "5", "10"]
    assert examples.texts(99) == [row["text"] for row in rows]


def test_pairs_are_timed_as_single_texts_where_they_are_embedded_so(write):
    rows = [{"text": f"a{number}", "text_pair": f"b{number}", "score": number} for number in range(10)]
    assert Evaluation.read(write("data.jsonl", rows), None).texts(2) == ["a0", "b9"]


# Refusing.


@pytest.mark.parametrize(
    ("head", "name", "content", "message"),
    [
        (CLASSES, "d.jsonl", [{"text": "x"}] * 12, "example 1 has no label_text or label; it has: text"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": "a"}] * 11 + [{"label": "a"}], "example 12 has no text"),
        (CLASSES, "d.csv", "message,label\n" + "x,a\n" * 12, "example 1 has no text; it has: message, label"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": label} for label in "abcdefghijkl"], "labels that .*: c, d, e"),
        (MANY, "d.jsonl", [{"text": "x", "labels": ["a", "z"]}] * 12, "labels that the model lacks: z"),
        (MANY, "d.jsonl", [{"text": "x", "labels": "a"}] * 12, "labels holds 'a', expected a list"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": "a"}] * 9, "has 9 labelled examples; at least 10"),
        (CLASSES, "d.jsonl", "", "has 0 labelled examples"),
        (NUMBER, "d.jsonl", [{"text": "x", "score": "much"}] * 12, "the score is 'much', expected a number"),
        (NUMBER, "d.jsonl", [{"text": "x", "score": [1]}] * 12, r"the score is \[1\], expected a number"),
        (None, "d.jsonl", [{"text": "x", "score": 1}] * 12, "example 1 has no text_pair"),
        (TAGGER, "d.jsonl", [{"tokens": ["a", "b"], "tags": ["O"]}] * 12, "has 2 tokens and 1 tags"),
        (TAGGER, "d.jsonl", [{"text": "a"}] * 12, "has no tokens"),
        (TAGGER, "d.conll", "\n", "has 0 labelled examples"),
        (READER, "d.jsonl", [{"question": "q", "context": "c"}] * 12, "has no answers"),
        (READER, "d.json", "{", "is not JSON as SQuAD has it"),
        (READER, "d.json", "[]", "is not JSON as SQuAD"),
        (READER, "d.json", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', "as SQuAD has it: KeyError..question"),
        (CLASSES, "d.jsonl", "{\n", "line 1 is not JSON"),
        (CLASSES, "d.xlsx", "?", "unknown ending"),
    ],
)
def test_bad_files_are_refused_in_one_message(write, head, name, content, message):
    with pytest.raises(DatasetError, match=message):
        Evaluation.read(write(name, content), head)


@pytest.mark.parametrize("name", ["none.csv", "none.json", "none.conll", "."])
def test_a_file_that_is_not_there_is_refused(tmp_path, name):
    with pytest.raises(DatasetError, match="there is no file"):
        Evaluation.read(tmp_path / name, CLASSES)


@pytest.mark.parametrize("name", ["d.conll", "d.json", "d.csv"])
def test_a_file_that_is_not_utf8_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes("text,label\né,a\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"utf-8|UTF-8"):
        Evaluation.read(tmp_path / name, CLASSES)


def test_tags_that_the_model_lacks_are_refused(write):
    rows = [{"tokens": ["Ann", "Lee"], "tags": ["B-person", "I-person"]}] * 12
    with pytest.raises(DatasetError, match="labels that the model lacks"):
        Evaluation.read(write("d.jsonl", rows), TAGGER)


@pytest.mark.parametrize(
    ("head", "row"),
    [
        (TAGGER, {"tokens": ["a", "b"], "tags": [0, 1]}),
        (TAGGER, {"tokens": 5, "tags": ["O"]}),
        (READER, {"question": "q", "context": "c", "answers": 5}),
        (READER, {"question": "q", "context": "c", "answers": {"answer_start": [0]}}),
    ],
    ids=["tags as numbers", "tokens that are a number", "an answer that is a number", "answers without text"],
)
def test_cells_of_another_type_are_refused(write, head, row):
    with pytest.raises(DatasetError, match="example 1"):
        Evaluation.read(write("d.jsonl", [row] * 12), head)


# Scoring.


def evaluation(task, labels, inputs=None):
    inputs = [f"text {number}" for number in range(len(labels))] if inputs is None else inputs
    return Evaluation(task=task, metric="m", inputs=inputs, labels=labels)


def giving(**results):
    """A model whose methods give these results, whatever it is asked."""
    return SimpleNamespace(**{name: lambda _, found=found: found for name, found in results.items()})


@pytest.mark.parametrize("task", [Task.TEXT_CLASSIFICATION, Task.NEXT_SENTENCE_PREDICTION])
def test_accuracy_is_the_part_of_right_labels(task):
    model = giving(classify=[SimpleNamespace(label=label) for label in "aabb"])
    assert evaluation(task, ["a", "b", "b", "b"]).score(model) == 75.0


def test_label_f1_is_scikit_learns_micro_f1():
    expected = [{"a", "b"}, {"c"}, set(), {"a"}]
    found = [{"a"}, {"c", "b"}, {"a"}, {"a"}]
    model = giving(classify=[SimpleNamespace(above=lambda labels=labels: list(labels)) for labels in found])
    binary = MultiLabelBinarizer(classes=list("abc")).fit([list("abc")])
    reference = f1_score(binary.transform(expected), binary.transform(found), average="micro")
    score = evaluation(Task.MULTI_LABEL_CLASSIFICATION, [frozenset(labels) for labels in expected]).score(model)
    assert score == pytest.approx(100 * reference)
    assert score == pytest.approx(100 * 2 * 3 / (4 + 5))


@pytest.mark.parametrize(
    ("found", "score"),
    [
        ([[("who", 0, 7)], [("where", 3, 7)]], 100.0),
        ([[("who", 0, 3)], [("where", 3, 7)]], 50.0),
        ([[("where", 0, 7)], []], 0.0),
        ([[("who", 0, 7), ("who", 8, 9)], [("where", 3, 7)]], 80.0),
        ([[], []], 0.0),
    ],
    ids=["all right", "another place", "another label", "one too many", "none"],
)
def test_span_f1_counts_spans_of_the_right_place_and_label(found, score):
    spans = [[SimpleNamespace(label=label, start=start, end=end) for label, start, end in each] for each in found]
    labels = [frozenset({("who", 0, 7)}), frozenset({("where", 3, 7)})]
    assert evaluation(Task.TOKEN_CLASSIFICATION, labels).score(giving(tag=spans)) == pytest.approx(score)


def test_where_nothing_is_tagged_and_nothing_found_all_is_right():
    assert evaluation(Task.TOKEN_CLASSIFICATION, [frozenset()] * 2).score(giving(tag=[[], []])) == 100.0


def test_regression_is_scored_by_spearman():
    random = np.random.default_rng(0)
    found, labels = random.normal(size=20).astype(np.float32), random.integers(0, 5, 20).astype(float).tolist()
    score = evaluation(Task.TEXT_REGRESSION, labels).score(giving(score=found))
    assert score == pytest.approx(100 * spearmanr(found, labels).statistic)
    # Ranks count, not distances.
    assert evaluation(Task.TEXT_REGRESSION, [1, 2, 3]).score(giving(score=np.array([1, 10, 99]))) == pytest.approx(100)


def test_embeddings_are_scored_by_spearman_of_cosines():
    random = np.random.default_rng(1)
    # Of many lengths, which cosines do not count.
    vectors = {text: random.normal(size=4) * random.uniform(0.1, 10) for text in "abcdefghij"}
    pairs = list(itertools.combinations("abcdefghij", 2))[:20]
    labels = random.uniform(size=20).tolist()
    model = SimpleNamespace(embed=lambda texts: np.array([vectors[text] for text in texts]))
    similar = [vectors[a] @ vectors[b] / np.linalg.norm(vectors[a]) / np.linalg.norm(vectors[b]) for a, b in pairs]
    score = evaluation(Task.FEATURE_EXTRACTION, labels, pairs).score(model)
    assert score == pytest.approx(100 * spearmanr(similar, labels).statistic)


@pytest.mark.parametrize(
    ("found", "right", "score"),
    [
        ("Ann Lee", ["Ann Lee"], 100.0),
        ("the ann, lee!", ["Ann Lee Kim"], 80.0),
        ("the ann, lee!", ["A Ann Lee"], 100.0),
        ("Ann", ["Ann Lee"], 100 * 2 / 3),
        ("Ann", ["Bob", "Ann Lee"], 100 * 2 / 3),
        ("Ann Ann", ["Ann Lee"], 50.0),
        ("Bob", ["Ann Lee"], 0.0),
        ("", [], 100.0),
        ("Bob", [], 0.0),
        (None, [], 100.0),
        (None, ["Ann"], 0.0),
        ("the", ["a"], 100.0),
    ],
)
def test_answers_are_scored_by_the_words_in_common(found, right, score):
    results = [[] if found is None else [SimpleNamespace(text=found)]]
    assert evaluation(Task.QUESTION_ANSWERING, [right]).score(giving(answer=results)) == pytest.approx(score)


def test_few_examples_are_fewer_than_ten():
    assert LEAST_EXAMPLES == 10
