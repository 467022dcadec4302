"""Labelled data is read as users keep it, with the options that training has."""

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from encort.export.evaluation import MIN_EXAMPLES, Evaluation
from encort.export.exporter import export_bundle
from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.cli.main import group
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.errors import DatasetError, InputError
from encort.runtime.common.token_lists import TokenKind

TAGS = ["O", "B-who", "I-who", "B-where"]
Write = Callable[[str, Any], Path]


def head(task: Task, labels: Sequence[str] = ("a", "b"), **options: Any) -> HeadInfo:
    return HeadInfo(name="h", task=task, labels=list(labels), outputs=["logits"], **options)


CLASSES, MANY = head(Task.TEXT_CLASSIFICATION), head(Task.MULTI_LABEL_CLASSIFICATION, "abc")
NUMBER, TAGGER = head(Task.TEXT_REGRESSION, ["score"]), head(Task.TOKEN_CLASSIFICATION, TAGS)
CHARACTER_TAGGER = head(Task.TOKEN_CLASSIFICATION, TAGS, aggregation=Aggregation.SIMPLE)
READER = head(Task.QUESTION_ANSWERING, [])
BERT_PAIRS = head(Task.NEXT_SENTENCE_PREDICTION, ["is_next", "not_next"])
DUAL_PAIRS = head(Task.NEXT_SENTENCE_PREDICTION, ["0", "1"])
NAMED_PAIRS = head(Task.NEXT_SENTENCE_PREDICTION, ["next", "far"])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(name, rows)` makes JSON lines of dicts, or a file of that text."""

    def make(name: str, content: Any) -> Path:
        file = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row) + "\n" for row in content)
        file.write_text(content, encoding="utf-8")
        return file

    return make


def repeated(*rows: Any) -> list[Any]:
    return list(itertools.islice(itertools.cycle(rows), 12))


# Reading.


@pytest.mark.parametrize("tag", ["B-who", "S-who", "who", "i_who", "who-U"])
def test_tags_of_any_scheme_are_the_spans_of_the_head(write: Write, tag: str) -> None:
    rows = repeated({"tokens": ["Ann", "is"], "tags": [tag, "O"]})
    evaluation = Evaluation.read(write("rows.jsonl", rows), TAGGER)
    assert evaluation.labels[0] == {("who", 0, 3)}


def test_few_tags_of_the_scheme_of_the_head_are_enough(write: Write) -> None:
    rows = repeated({"tokens": ["Ann", "is"], "tags": ["E-who", "O"]})
    tagger = head(Task.TOKEN_CLASSIFICATION, ["O", "B-who", "I-who", "E-who", "S-who"])
    assert Evaluation.read(write("rows.jsonl", rows), tagger).labels[0] == {("who", 0, 3)}


def test_words_for_a_tagger_of_tokens_have_spaces_between_them(write: Write) -> None:
    rows = repeated({"tokens": ["in", "New", "York"], "tags": ["O", "B-where", "O"]})
    evaluation = Evaluation.read(write("rows.jsonl", rows), CHARACTER_TAGGER)
    assert evaluation.inputs[0] == "in New York"
    characters = repeated({"tokens": [*"서울 1"], "tags": ["B-where", "B-where", "O", "O"]})
    assert Evaluation.read(write("rows.jsonl", characters), CHARACTER_TAGGER).inputs[0] == "서울 1"


@pytest.mark.parametrize(
    ("kind", "tokens", "text"),
    [("characters", [*"ab"], "ab"), ("words", ["ผม", " ", "รัก"], "ผม   รัก"), ("words", ["서", "울"], "서 울")],
)
def test_tokens_are_joined_as_in_training(write: Write, kind: str, tokens: list[str], text: str) -> None:
    tagger = head(Task.TOKEN_CLASSIFICATION, TAGS, tokens=TokenKind(kind), aggregation=Aggregation.SIMPLE)
    rows = repeated({"tokens": tokens, "tags": ["O"] * len(tokens)})
    assert Evaluation.read(write("rows.jsonl", rows), tagger).inputs[0] == text


def test_the_whole_file_tells_what_its_tokens_are_if_the_head_does_not_know(write: Write) -> None:
    rows = repeated({"tokens": [*"an b"], "tags": ["O"] * 4}, {"tokens": [*"ab"], "tags": ["O"] * 2})
    assert Evaluation.read(write("rows.jsonl", rows), CHARACTER_TAGGER).inputs[:2] == ("an b", "ab")


@pytest.mark.parametrize(
    ("head", "rows", "inputs", "labels"),
    [
        (CLASSES, [{"text": "x", "label_text": "a"}, {"text": "y", "label_text": "b"}], ["x", "y"], ["a", "b"]),
        (CLASSES, [{"text": "x", "label": "b"}], ["x"], ["b"]),
        (CLASSES, [{"text": "x", "text_pair": "z", "label": "b", "label_text": "a"}], [("x", "z")], ["a"]),
        (CLASSES, [{"text": "x", "intent": "b"}], ["x"], ["b"]),
        (CLASSES, [{"text": "x", "text_pair": None, "label": "a"}], ["x"], ["a"]),
        (head(Task.TEXT_CLASSIFICATION, ["0", "1"]), [{"text": "x", "label": 1}], ["x"], ["1"]),
        (NAMED_PAIRS, [{"text": "x", "text_pair": "z", "label": "far"}], [("x", "z")], ["far"]),
        (
            BERT_PAIRS,
            [{"text": "x", "text_pair": "z", "label": label} for label in (1, "0", True, "NOT_NEXT")],
            [("x", "z")] * 4,
            ["is_next", "not_next", "is_next", "not_next"],
        ),
        (
            DUAL_PAIRS,
            [{"text": "x", "text_pair": "z", "label": label} for label in (1, "0", "is_next", "false")],
            [("x", "z")] * 4,
            ["1", "0", "1", "0"],
        ),
        (MANY, [{"text": "x", "labels": ["a", "c"]}, {"text": "y", "labels": []}], ["x", "y"], [{"a", "c"}, set()]),
        (MANY, [{"text": "x", "labels": "a | c"}, {"text": "y", "labels": ""}], ["x", "y"], [{"a", "c"}, set()]),
        (MANY, [{"text": "x", "label": ["b"]}], ["x"], [{"b"}]),
        (NUMBER, [{"text": "x", "score": 2}, {"text": "y", "score": "0.5"}], ["x", "y"], [2.0, 0.5]),
        (NUMBER, [{"text": "x", "label": 2}], ["x"], [2.0]),
        (None, [{"text": "x", "text_pair": "y", "score": 0}], [("x", "y")], [0.0]),
        (None, [{"text": "x", "text_pair": "y"}], [("x", "y")], ["y"]),
        (
            TAGGER,
            [{"tokens": ["Ann", "Lee", "met", "Bob"], "tags": ["B-who", "I-who", "O", "B-who"]}],
            ["Ann Lee met Bob"],
            [{("who", 0, 7), ("who", 12, 15)}],
        ),
        (TAGGER, [{"words": ["Ann", "Lee"], "ner_tags": ["B-who", "I-who"]}], ["Ann Lee"], [{("who", 0, 7)}]),
        (CHARACTER_TAGGER, [{"tokens": [*"An B"], "tags": ["B-who", "I-who", "O", "O"]}], ["An B"], [{("who", 0, 2)}]),
        (
            head(Task.TOKEN_CLASSIFICATION, ["O", "S-who"]),
            [{"tokens": ["Ann", "Lee"], "tags": ["O", "S-who"]}],
            ["Ann Lee"],
            [{("who", 4, 7)}],
        ),
        (
            READER,
            [{"question": "q", "context": "c", "answers": {"text": ["1", "2"], "answer_start": [0, 3]}}],
            [("q", "c")],
            [["1", "2"]],
        ),
        (READER, [{"question": "q", "context": "c", "answers": ["1"]}], [("q", "c")], [["1"]]),
        (READER, [{"question": "q", "context": "c", "answers": "1"}], [("q", "c")], [["1"]]),
        (READER, [{"question": "q", "context": "c", "answer": " 1 ", "answer_start": 4}], [("q", "c")], [["1"]]),
    ],
)
def test_rows_become_inputs_and_labels(
    write: Write, head: HeadInfo | None, rows: list[Any], inputs: list[Any], labels: list[Any]
) -> None:
    evaluation = Evaluation.read(write("data.jsonl", repeated(*rows)), head)
    assert list(evaluation.inputs[: len(rows)]) == inputs
    assert list(evaluation.labels[: len(rows)]) == labels
    assert (len(evaluation.inputs), len(evaluation.labels)) == (12, 12)
    assert evaluation.task == (Task.FEATURE_EXTRACTION if head is None else head.task)


@pytest.mark.parametrize(
    ("row", "metric"),
    [({"score": 1.0}, "Spearman of cosines"), ({}, "accuracy at 1")],
    ids=["scored", "alike"],
)
def test_scores_of_pairs_choose_the_metric(write: Write, row: dict[str, float], metric: str) -> None:
    rows = [{"text": "a", "text_pair": "b", **row}] * 12
    assert Evaluation.read(write("data.jsonl", rows), None).metric == metric


def test_pairs_of_unknown_label_are_left_out(write: Write) -> None:
    rows = [{"text": f"a{number}", "text_pair": "b", "label": number % 3 - 1} for number in range(30)]
    evaluation = Evaluation.read(write("data.jsonl", rows), BERT_PAIRS)
    assert len(evaluation.inputs) == len(evaluation.labels) == 20
    assert evaluation.inputs[:2] == (("a1", "b"), ("a2", "b"))
    assert evaluation.labels[:2] == ("not_next", "is_next")
    with pytest.raises(DatasetError, match="has 8 labelled examples; at least 10"):
        Evaluation.read(write("few.jsonl", rows[:12]), BERT_PAIRS)


def test_columns_and_header_are_named_as_for_training(write: Write) -> None:
    rows = "".join(f"{number},message {number},b\n" for number in range(12))
    named = write("named.csv", f"id,message,intent\n{rows}")
    evaluation = Evaluation.read(named, CLASSES, columns={"text": "message", "label": "intent"})
    assert evaluation.inputs[3] == "message 3"
    assert set(evaluation.labels) == {"b"}
    bare = Evaluation.read(write("bare.csv", rows), CLASSES, header=["id", "text", "label"])
    assert (bare.inputs, bare.labels) == (evaluation.inputs, evaluation.labels)


def test_csv_is_read_with_its_quotes(write: Write) -> None:
    rows = "".join(f'"number {number}, said ""x""",b\n' for number in range(10))
    evaluation = Evaluation.read(write("data.csv", f"text,label\n{rows}"), CLASSES)
    assert evaluation.inputs[3] == 'number 3, said "x"'
    assert set(evaluation.labels) == {"b"}


def test_conll_is_read_by_its_first_and_last_column(write: Write) -> None:
    sentence = "Ann NNP B-who\nLee NNP I-who\nin IN O\nRome NNP B-where\n"
    file = write("data.CONLL", "\n" + "\n \n".join([sentence] * 11) + "\n\n")
    evaluation = Evaluation.read(file, TAGGER)
    assert list(evaluation.inputs) == ["Ann Lee in Rome"] * 11
    assert list(evaluation.labels) == [{("who", 0, 7), ("where", 11, 15)}] * 11


def test_squad_is_read_with_its_unanswerable_questions(write: Write) -> None:
    questions = [
        {"question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}, {"text": "Ann Lee", "answer_start": 0}]},
        {"question": "Why?", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": "Ann Lee came.", "qas": questions}] * 3
    file = write("data.json", json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}] * 2}))
    evaluation = Evaluation.read(file, READER)
    assert list(evaluation.inputs) == [("Who?", "Ann Lee came."), ("Why?", "Ann Lee came.")] * 6
    assert list(evaluation.labels) == [["Ann", "Ann Lee"], []] * 6


def test_the_timed_texts_come_evenly_from_all(write: Write) -> None:
    rows = [{"text": str(number), "label": "ab"[number % 2]} for number in range(11)]
    evaluation = Evaluation.read(write("data.jsonl", rows), CLASSES)
    assert evaluation.texts(3) == ["0", "5", "10"]
    assert evaluation.texts(99) == [row["text"] for row in rows]


def test_pairs_for_embeddings_are_timed_as_single_texts(write: Write) -> None:
    rows = [{"text": f"a{number}", "text_pair": f"b{number}", "score": number} for number in range(10)]
    assert Evaluation.read(write("data.jsonl", rows), None).texts(2) == ["a0", "b9"]


# Refusals.


@pytest.mark.parametrize(
    ("head", "name", "content", "message"),
    [
        (CLASSES, "d.jsonl", [{"text": "x"}] * 12, r"has no column 'label_text' or 'label' .*; it has: text$"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": "a"}] * 11 + [{"label": "a"}], "no text: row 12$"),
        (CLASSES, "d.csv", "message,label\n" + "x,a\n" * 12, r"has no column 'text' \(--evaluation-column text=NAME\)"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": label} for label in "abcdefghijkl"], "lacks: c, d, e, f, g$"),
        (MANY, "d.jsonl", [{"text": "x", "labels": ["a", "z"]}] * 12, "labels that the model lacks: z$"),
        (MANY, "d.jsonl", [{"text": "x", "labels": "a|z"}] * 12, "labels that the model lacks: z$"),
        (MANY, "d.jsonl", [{"text": "x", "labels": 5}] * 12, "label is not a list of labels: rows 1, 2, 3"),
        (
            BERT_PAIRS,
            "d.jsonl",
            [{"text": "x", "text_pair": "y", "label": 2}] * 12,
            "label is none of 1, true, is_next",
        ),
        (BERT_PAIRS, "d.jsonl", [{"text": "x", "label": 1}] * 12, "has no column 'text_pair'"),
        (NAMED_PAIRS, "d.jsonl", [{"text": "x", "label": 1}] * 12, "labels that the model lacks: 1"),
        (CLASSES, "d.jsonl", [{"text": "x", "label": "a"}] * 9, "has 9 labelled examples; at least 10"),
        (CLASSES, "d.jsonl", "", "d.jsonl has no rows"),
        (NUMBER, "d.jsonl", [{"text": "x", "score": "much"}] * 12, "the score is not a number: rows 1, 2"),
        (NUMBER, "d.jsonl", [{"text": "x", "score": [1]}] * 12, "the score is not a number: rows 1, 2"),
        (None, "d.jsonl", [{"text": "x", "score": 1}] * 12, "has no column 'text_pair'"),
        (None, "d.jsonl", [{"text": "x", "text_pair": "y", "score": None}] * 12, "the score is not a number: rows 1"),
        (TAGGER, "d.jsonl", [{"tokens": ["a", "b"], "tags": ["O"]}] * 12, "fewer tags than tokens: rows 1, 2"),
        (TAGGER, "d.jsonl", [{"tags": ["O"]}] * 12, "has no column 'tokens' or 'words'"),
        (TAGGER, "d.conll", "\n", "d.conll has no rows"),
        (READER, "d.jsonl", [{"question": "q", "context": "c"}] * 12, "has no column 'answers' or 'answer'"),
        (READER, "d.json", "{", "is not JSON"),
        (READER, "d.json", "[]", "has no rows"),
        (READER, "d.json", '{"data": [{"paragraphs": [{"qas": [{}]}]}]}', "as SQuAD has it: KeyError..question"),
        (CLASSES, "d.jsonl", "{\n", "line 1 is not JSON"),
        (CLASSES, "d.xlsx", "?", "unknown ending"),
    ],
)
def test_a_bad_file_is_refused_in_one_message(
    write: Write, head: HeadInfo | None, name: str, content: Any, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        Evaluation.read(write(name, content), head)


def test_all_problems_are_reported_at_once(write: Write) -> None:
    good = {"text": "x", "label": "a"}
    rows = [good, {"text": " "}, good, {"text": 5, "label": "z"}, {"text": "x", "label": "q"}, {"label": 1.5}]
    file = write("d.jsonl", rows)
    with pytest.raises(DatasetError) as refused:
        Evaluation.read(file, CLASSES, columns={"kind": "label"})
    assert str(refused.value).splitlines() == [
        "this cannot be evaluated on:",
        "  --evaluation-column kind=...: this task has no such column, but text, text_pair, label",
        f"  {file} has labels that the model lacks: q",
        f"  {file}: text is empty: row 2",
        f"  {file}: no label: row 2",
        f"  {file}: text is not a text: row 4",
        f"  {file}: no text: row 6",
        f"  {file}: label is not a text or a whole number: row 6",
    ]


@pytest.mark.parametrize("name", ["none.csv", "none.json", "none.conll", "."])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match="is a folder; name a file in it" if name == "." else "there is no file"):
        Evaluation.read(tmp_path / name, CLASSES)


@pytest.mark.parametrize("name", ["d.conll", "d.json", "d.csv"])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("text,label O\né,a O\n".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"utf-8|UTF-8"):
        Evaluation.read(tmp_path / name, CLASSES)


def test_tags_that_the_model_lacks_are_refused(write: Write) -> None:
    rows = [{"tokens": ["Ann", "Lee"], "tags": ["B-person", "I-person"]}] * 12
    with pytest.raises(DatasetError, match="labels that the model lacks: person"):
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
def test_cells_of_another_type_are_refused(write: Write, head: HeadInfo, row: dict[str, Any]) -> None:
    with pytest.raises(DatasetError, match="rows 1, 2, 3"):
        Evaluation.read(write("d.jsonl", [row] * 12), head)


def test_few_examples_are_fewer_than_ten() -> None:
    assert MIN_EXAMPLES == 10


# The options of the command.


def export(*arguments: Any) -> None:
    """Run the command in this process; an error of encort's own is raised."""
    result = CliRunner().invoke(group, ["export", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception


@pytest.mark.parametrize(
    ("content", "options"),
    [
        ("id,message,intent\n" + "1,hello,nobody\n" * 12, ["text=message", "label=intent"]),
        ("1,hello,nobody\n" * 12, "id,text,label"),
    ],
    ids=["columns", "header"],
)
def test_the_command_hands_the_options_on(
    classifier_checkpoint: Path, output: Path, write: Write, content: str, options: list[str] | str
) -> None:
    arguments = ["--evaluation", write("d.csv", content)]
    if isinstance(options, str):
        arguments += ["--evaluation-header", options]
    else:
        arguments += [part for option in options for part in ("--evaluation-column", option)]
    # An error about the labels shows that the columns were found.
    with pytest.raises(DatasetError, match=r"labels that the model lacks: nobody$"):
        export(classifier_checkpoint, "--output", output, *arguments)
    assert list(output.parent.iterdir()) == []


def test_an_option_without_a_role_is_refused(classifier_checkpoint: Path, output: Path, write: Write) -> None:
    file = write("d.csv", "text,label\n" + "hello,hello\n" * 12)
    with pytest.raises(InputError, match="--evaluation-column 'message' is not ROLE=NAME, such as text=message"):
        export(classifier_checkpoint, "-o", output, "--evaluation", file, "--evaluation-column", "message")


@pytest.mark.parametrize("options", [{"evaluation_columns": {"text": "a"}}, {"evaluation_header": ["text"]}])
def test_options_of_labelled_data_are_refused_without_it(
    classifier_checkpoint: Path, output: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="--evaluation-header are for labelled data; give it with --evaluation"):
        export_bundle(classifier_checkpoint, output, **options)
    assert list(output.parent.iterdir()) == []
