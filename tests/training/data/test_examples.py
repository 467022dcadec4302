"""Labelled files become checked examples, or one error that lists all their problems."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest

from encort.runtime.common.errors import DatasetError
from encort.runtime.common.labelled_rows.columns import check_roles
from encort.runtime.common.labelled_rows.problems import Problems
from encort.training.data import examples
from encort.training.data.examples import Schema, find_source_columns, hold_back, read_examples, sort_labels
from encort.training.data.sources import Source, find_sources
from encort.training.tasks.base import TrainingTask
from encort.training.tasks.text_classification import MultiLabelClassification, TextClassification, TextRegression

TWO = "text,label\nhello,a\nbye,b\n"

Write = Callable[..., Path]
Check = Callable[..., tuple[dict[str, datasets.Dataset], list[str]]]
Load = Callable[..., tuple[list[str], list[Any], list[str]]]
Refused = Callable[..., str]


@pytest.fixture
def check() -> Check:
    """`check(task, train, validation=, test=, columns=, header=)`: splits and labels, or a DatasetError with all."""

    def check_all(
        task: TrainingTask, train: Path, *, columns: dict[str, str] | None = None, **options: Any
    ) -> tuple[dict[str, datasets.Dataset], list[str]]:
        paths = {name: str(value) for name, value in options.items() if name != "header" and value is not None}
        sources = find_sources(str(train), header=options.get("header"), **paths)
        problems = Problems()
        splits: dict[str, datasets.Dataset] = {}
        check_roles(task.schema.rows, columns or {}, problems)
        for split, source in sources.items():
            names = find_source_columns(source, task.schema, problems, asked=columns or {})
            rows = names and read_examples(source, task.schema, problems, names=names, key=task.key)
            splits |= {split: rows} if rows else {}
        labels = task.labels(splits, sources, problems) if "train" in splits else []
        problems.check()
        return splits, labels

    return check_all


@pytest.fixture
def load(check: Check, write: Write) -> Load:
    """`load(name, content, task=, columns=)`: texts and labels of the rows, and all labels."""

    def load_table(
        name: str, content: str, task: type[TrainingTask] = TextClassification, **options: Any
    ) -> tuple[list[str], list[Any], list[str]]:
        splits, labels = check(task(), write(name, content), **options)
        return splits["train"]["text"][:], splits["train"]["label"][:], labels

    return load_table


@pytest.fixture
def refused(load: Load) -> Refused:
    """`refused(name, content, message)`: the text of a DatasetError that matches, and names the file."""

    def check_refusal(name: str, content: str, message: str, **options: Any) -> str:
        with pytest.raises(DatasetError, match=message) as refusal:
            load(name, content, **options)
        assert name in str(refusal.value)
        return str(refusal.value)

    return check_refusal


def as_jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# Columns.


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("text,label,label_text", {}),
        ("text,number,label_text", {}),
        ("text,number,label", {}),
        ("label_text,label,text", {"label": "text", "text": "label_text"}),
        ("utterance,id,intent", {"text": "utterance", "label": "intent"}),
        ("text,label,intent", {"label": "intent"}),
    ],
)
def test_columns_are_found_by_convention_or_role(header: str, columns: dict[str, str], load: Load) -> None:
    content = f"{header}\nhello,1,a\nbye,2,b\n"
    assert load("table.csv", content, columns=columns)[:2] == (["hello", "bye"], ["a", "b"])


@pytest.mark.parametrize(
    ("header", "columns"), [("text,category", {}), ("category,text", {}), ("words,intent", {"text": "words"})]
)
def test_the_only_other_column_is_the_label(header: str, columns: dict[str, str], load: Load) -> None:
    rows = ["a,hello", "b,bye"] if header == "category,text" else ["hello,a", "bye,b"]
    assert load("table.csv", "\n".join([header, *rows]), columns=columns)[:2] == (["hello", "bye"], ["a", "b"])


def test_the_second_text_is_never_taken_for_the_label(check: Check, write: Write) -> None:
    splits, labels = check(TextClassification(), write("pairs.csv", "text,text_pair,kind\nhello,you,a\nbye,now,b\n"))
    assert splits["train"].to_dict() == {"text": ["hello", "bye"], "text_pair": ["you", "now"], "label": ["a", "b"]}
    assert labels == ["a", "b"]


@pytest.mark.parametrize(
    ("header", "columns", "message"),
    [
        ("words,label,id", {}, "has no column 'text' .*--column text=NAME.*; it has: words, label, id"),
        ("text,one,two", {}, "has no column 'label_text' or 'label'.*; it has: text, one, two"),
        ("text,label,id", {"text": "words"}, "has no column 'words'.*; it has: text, label, id"),
        ("text,label,id", {"label": "intent"}, "has no column 'intent'.*--column label=NAME"),
        ("text,label,id", {"text_pair": "other"}, "has no column 'other'.*--column text_pair=NAME"),
    ],
)
def test_a_missing_column_is_refused_with_the_existing_columns(
    header: str, columns: dict[str, str], message: str, refused: Refused
) -> None:
    refused("table.csv", f"{header}\nhello,a,1\nbye,b,2\n", message, columns=columns)


def test_a_table_of_texts_alone_is_refused(refused: Refused) -> None:
    refused("table.csv", "text\nhello\nbye\n", "has no column 'label_text' or 'label'")


def test_an_unknown_role_is_refused_with_the_roles_of_the_task(load: Load) -> None:
    with pytest.raises(DatasetError, match=r"txet.*text, text_pair, label"):
        load("table.csv", TWO, columns={"txet": "label"})


# Labels.


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1", "2"], ["-1", "2", "9", "10"]),
        (["b", "B", "ä", "a"], ["B", "a", "b", "ä"]),
        (["10", "9", "x"], ["10", "9", "x"]),
    ],
)
def test_labels_are_sorted_by_number_if_all_are_numbers(labels: list[str], expected: list[str], load: Load) -> None:
    rows = "".join(f"hello,{label}\n" for label in labels)
    assert load("table.csv", f"text,label\n{rows}")[1:] == (labels, expected)
    assert sort_labels(labels * 2) == expected


@pytest.mark.parametrize(
    ("labels", "names"),
    [([1, 0], ["1", "0"]), ([True, False], ["True", "False"]), ([1, "x"], ["1", "x"]), ([" x ", "y\t"], ["x", "y"])],
    ids=["numbers", "booleans", "mixed", "spaces"],
)
def test_labels_are_names(labels: list[Any], names: list[str], load: Load) -> None:
    assert load("table.jsonl", as_jsonl(*({"text": "hello", "label": label} for label in labels)))[1] == names


def test_a_jsonl_column_of_dates_stays_strings(load: Load) -> None:
    days = ["2024-03-17", "2024-03-18"]
    assert load("days.jsonl", as_jsonl(*({"text": day, "label": day} for day in days))) == (days, days, days)


def test_a_single_label_is_refused(refused: Refused) -> None:
    refused("table.csv", "text,label\nhello,a\nbye,a\n", r"has 1 label\(s\), a; a classifier needs at least 2")


def test_labels_that_the_training_data_lacks_are_listed_by_row(check: Check, write: Write) -> None:
    validation = write("validation.csv", "text,label\nhello,a\nbye,c\nhello,b\nbye,d\nhello,c\n")
    test = write("test.csv", "text,label\nhello,c\n")
    with pytest.raises(DatasetError) as refusal:
        check(TextClassification(), write("train.csv", TWO), validation=validation, test=test)
    assert str(refusal.value).splitlines()[1:] == [
        f"  {validation}: label 'c' is not in the training data: rows 2, 5",
        f"  {validation}: label 'd' is not in the training data: row 4",
        f"  {test}: label 'c' is not in the training data: row 1",
    ]


def test_validation_may_lack_labels(check: Check, write: Write) -> None:
    validation = write("validation.csv", "text,label\nhello,b\n")
    splits, labels = check(TextClassification(), write("train.csv", TWO), validation=validation)
    assert (labels, splits["validation"]["label"][:]) == (["a", "b"], ["b"])


# Several labels, separated by bars in tables of text.


def test_lists_and_bars_are_the_same_labels(load: Load) -> None:
    rows = [["b", "a"], [], ["a"]]
    as_lists = as_jsonl(*({"text": "hello", "labels": row} for row in rows))
    as_bars = "text,labels\n" + "".join(f"hello,{' | '.join(row)}\n" for row in rows)
    for name, content in (("table.jsonl", as_lists), ("table.csv", as_bars)):
        assert load(name, content, task=MultiLabelClassification)[1:] == (rows, ["a", "b"])


def test_bars_around_nothing_are_no_labels(load: Load) -> None:
    assert load("table.csv", "text,labels\nhello,|a||b|\nbye, | \n", task=MultiLabelClassification)[1:] == (
        [["a", "b"], []],
        ["a", "b"],
    )


def test_a_single_label_is_enough_where_a_text_may_have_several(load: Load) -> None:
    assert load("table.csv", "text,labels\nhello,a\nbye,\n", task=MultiLabelClassification)[2] == ["a"]


def test_a_file_without_any_label_is_refused(refused: Refused) -> None:
    refused("table.csv", "text,labels\nhello,\nbye,|\n", "has 0 label", task=MultiLabelClassification)


def test_cells_that_are_no_list_of_labels_are_listed_by_row(refused: Refused) -> None:
    labels = [["a"], "b", None, 3, True]
    content = as_jsonl(*({"text": "hello", "labels": cell} for cell in labels))
    refused("table.jsonl", content, "label is not a list of labels: rows 3, 4, 5$", task=MultiLabelClassification)


def test_labels_of_a_list_are_stripped_as_those_between_bars(load: Load) -> None:
    content = as_jsonl({"text": "hello", "labels": ["a ", "b"]}, {"text": "bye", "labels": ["a", ""]})
    assert load("table.jsonl", content, task=MultiLabelClassification)[2] == ["a", "b"]


# Scores.


def test_scores_are_numbers_and_strings_of_numbers(load: Load) -> None:
    for name, content in (
        ("table.csv", "text,score\nhello,1\nbye,-2.5\nnow,1e-3\n"),
        (
            "table.jsonl",
            as_jsonl({"text": "hello", "label": 1}, {"text": "bye", "label": -2.5}, {"text": "now", "label": "1e-3"}),
        ),
    ):
        assert load(name, content, task=TextRegression)[1] == pytest.approx([1, -2.5, 1e-3])


@pytest.mark.parametrize("score", ["", "nan", "inf", "-inf", "1e400", "high", "1,500", True, None, [1]])
def test_cells_that_are_no_score_are_refused(score: Any, refused: Refused) -> None:
    content = as_jsonl({"text": "hello", "score": 1}, {"text": "bye", "score": score})
    refused("table.jsonl", content, "the score is not a number: row 2$", task=TextRegression)


@pytest.mark.parametrize("score", ["1e39", "1" + "0" * 400])
def test_a_score_too_large_to_learn_is_refused_by_row(score: str, refused: Refused) -> None:
    content = f'{{"text": "hello", "score": 1}}\n{{"text": "bye", "score": {score}}}\n'
    refused("table.jsonl", content, "row 2", task=TextRegression)


# Refusals.


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl"])
@pytest.mark.parametrize("content", ["", "text\tlabel\n"], ids=["empty", "header alone"])
def test_a_file_without_rows_is_refused(name: str, content: str, refused: Refused) -> None:
    if name == "table.jsonl" and content:
        content = "\ufeff"
    refused(name, content, "has no rows")


def test_a_damaged_row_is_refused_with_the_message_of_the_reader(refused: Refused) -> None:
    refused("late.csv", "text,label\n" + "hello,a\n" * 20_000 + "bye, then,b\n", "row 20001 has more cells")
    content = as_jsonl({"text": "hello", "label": "a"}, [1, 2])
    refused("no objects.jsonl", content, r"text is not a text: row 2\n.*no label: row 2$")


GAPS = {
    "table.csv": 'text,label\nhello,a\n,b\n"   ",b\nbye,\nyou\n,b\n,\n',
    "table.tsv": "text\tlabel\nhello\ta\n\tb\n   \tb\nbye\t\nyou\n\tb\n\t\n",
    "table.jsonl": as_jsonl(
        {"text": "hello", "label": "a"},
        {"text": None, "label": "b"},
        {"text": "   ", "label": "b"},
        {"text": "bye"},
        {"text": "you", "label": " "},
        {"label": "b"},
        {"id": 7},
    ),
}


@pytest.mark.parametrize(("name", "content"), GAPS.items(), ids=GAPS)
def test_rows_without_text_or_label_are_all_listed(name: str, content: str, refused: Refused) -> None:
    message = refused(name, content, "^this cannot be trained on:\n")
    assert re.findall(r": ([\w ]+: rows? .*)", message) == [
        "no text: rows 2, 6, 7",
        "text is empty: row 3",
        "no label: rows 4, 5, 7",
    ]


WRONG = {
    "text is not a text": {"text": ["hello"], "label": "a"},
    "label is not a text or a whole number": {"text": "hello", "label": 1.5},
    "no text_pair": {"text": "hello", "label": "a", "text_pair": ""},
    "text_pair is empty": {"text": "hello", "label": "a", "text_pair": " "},
}


@pytest.mark.parametrize(("problem", "row"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_refused_by_row(problem: str, row: dict[str, Any], refused: Refused) -> None:
    good = {"text": "hello", "label": "a"} | ({"text_pair": "you"} if "text_pair" in row else {})
    refused("table.jsonl", as_jsonl(good, row, good), rf"table.jsonl: {problem}: row 2$")


def test_a_long_list_of_rows_is_cut(refused: Refused) -> None:
    message = refused("table.csv", "text,label\nhello,a\n" + ",b\n" * 25, "no text: rows ")
    assert message.endswith(", 20, 21 and 5 more")
    assert message.count("no text") == 1
    numbers = "text,label\nhello,a\n" + ",b\n" * 20
    assert "more" not in refused("table.csv", numbers, "no text: rows 2, .*, 21$")


def test_problems_of_all_splits_are_listed_together(check: Check, write: Write) -> None:
    with pytest.raises(DatasetError) as refusal:
        check(
            TextClassification(),
            write("train.csv", "text,label\nhello,a\n,b\n"),
            validation=write("validation.csv", "words,id,kind\nbye,1,a\n"),
            test=write("test.csv", "text,label\nhello,c\nbye,\n"),
        )
    message = str(refusal.value)
    for problem in (
        r"train.csv has 1 label\(s\)",
        r"train.csv: no text: row 2$",
        r"validation.csv has no column 'text'",
        r"test.csv: label 'c' is not in the training data: row 1$",
        r"test.csv: no label: row 2$",
    ):
        assert re.search(problem, message, re.MULTILINE), problem


def test_a_first_row_without_a_label_is_one_row_without_a_label(refused: Refused) -> None:
    refused("table.jsonl", as_jsonl({"text": "hello"}, {"text": "bye", "label": "b"}), "no label: row 1")


def test_a_second_text_is_not_dropped_because_the_first_row_has_none(refused: Refused) -> None:
    rows = {"text": "hello", "label": "a"}, {"text": "bye", "text_pair": "now", "label": "b"}
    refused("table.jsonl", as_jsonl(*rows), "no text_pair: row 1")


def test_half_a_character_is_refused_by_row(refused: Refused) -> None:
    refused("table.jsonl", '{"text": "hello", "label": "a"}\n{"text": "\\ud800", "label": "b"}\n', "row 2")


# The cache.


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were converted, one entry per conversion."""
    converted: list[str] = []
    convert = examples._generate

    def remember(source: Source, schema: Schema, names: dict[str, str]) -> Iterator[dict[str, Any]]:
        converted.append(source.name)
        yield from convert(source, schema, names)

    monkeypatch.setattr(examples, "_generate", remember)
    return converted


def test_converted_rows_are_memory_mapped_and_not_converted_again(
    check: Check, write: Write, conversions: list[str]
) -> None:
    file = write("cached.csv", TWO + "once,a\n")
    first, again = (check(TextClassification(), file)[0]["train"] for _ in range(2))
    assert conversions == [str(file)]
    assert first.cache_files == again.cache_files != []
    assert again["text"][:] == ["hello", "bye", "once"]


def test_a_copy_is_not_converted_again_but_its_problems_are_its_own(
    check: Check, write: Write, conversions: list[str]
) -> None:
    for name in ("one.csv", "two.csv"):
        with pytest.raises(DatasetError, match=f"{name}: no text: row 2"):
            check(TextClassification(), write(name, "text,label\nonce,a\n,b\n"))
    assert len(conversions) == 1


CHANGES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "content": ({"content": TWO + "more,a\n"}, ["hello", "bye", "more"]),
    "columns": ({"columns": {"text": "label", "label": "text"}}, ["a", "b"]),
    "header": ({"header": ["label", "text"]}, ["label", "a", "b"]),
}


@pytest.mark.parametrize(("options", "texts"), CHANGES.values(), ids=CHANGES)
def test_a_file_with_another_content_or_option_is_read_again(
    options: dict[str, Any], texts: list[str], check: Check, write: Write
) -> None:
    options = dict(options)
    assert check(TextClassification(), write("table.csv", TWO))[0]["train"]["text"][:] == ["hello", "bye"]
    file = write("table.csv", options.pop("content", TWO))
    assert check(TextClassification(), file, **options)[0]["train"]["text"][:] == texts


def test_another_task_reads_the_file_again(check: Check, write: Write) -> None:
    file = write("table.csv", "text,label\nhello,1\nbye,2\n")
    labels = [check(task(), file)[0]["train"]["label"][:] for task in (TextClassification, TextRegression)]
    assert labels == [["1", "2"], [1.0, 2.0]]


def test_other_code_reads_the_file_again(
    check: Check, write: Write, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write("table.csv", TWO + "twice,a\n")
    check(TextClassification(), file)
    monkeypatch.setattr(examples, "code_version", lambda: "other code")
    check(TextClassification(), file)
    assert len(conversions) == 2


@pytest.mark.parametrize(
    "file", ["training/data/examples.py", "runtime/common/labelled_rows/cells.py", "runtime/text/tokenizer.py"]
)
def test_the_version_of_the_code_covers_every_file_that_decides_about_examples(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = examples.code_version.__wrapped__()
    read_bytes = Path.read_bytes
    monkeypatch.setattr(
        Path, "read_bytes", lambda path: read_bytes(path) + b"#" * path.as_posix().endswith(f"encort/{file}")
    )
    assert examples.code_version.__wrapped__() != before


# Holding a validation set back.


def labelled(counts: dict[str, int]) -> datasets.Dataset:
    rows = [(f"{label} {n}", label) for label, count in counts.items() for n in range(count)]
    return datasets.Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def test_a_tenth_of_every_label_is_held_back() -> None:
    train, validation = hold_back(labelled({"a": 40, "b": 20}), 0.1, 0)
    assert sorted(validation["label"][:]) == ["a"] * 4 + ["b"] * 2
    assert len(train) == 54
    assert set(train["text"][:]).isdisjoint(validation["text"][:])
    assert train.column_names == validation.column_names == ["text", "label"]


def test_the_seed_chooses_what_is_held_back() -> None:
    rows = labelled({"a": 40, "b": 20})
    held_back = [hold_back(rows, 0.1, seed)[1]["text"][:] for seed in (0, 0, 1)]
    assert held_back[0] == held_back[1] != held_back[2]


@pytest.mark.parametrize(
    "counts",
    [{"a": 60, "b": 1}, {"a": 5, "b": 5}, {str(label): 2 for label in range(30)}],
    ids=["one of a label", "few rows", "more labels than are held back"],
)
def test_a_tenth_is_held_back_where_it_cannot_be_of_every_label(counts: dict[str, int]) -> None:
    rows = labelled(counts)
    train, validation = hold_back(rows, 0.1, 0)
    assert sorted([*train["text"], *validation["text"]]) == sorted(rows["text"])
    assert len(validation) == -(-len(rows) // 10)


def test_questions_of_one_context_stay_together() -> None:
    contexts = [f"context {number // 4}" for number in range(40)]
    rows = datasets.Dataset.from_dict({"context": contexts, "label": [["a"]] * 40})
    train, validation = hold_back(rows, 0.1, 0)
    assert set(train["context"]).isdisjoint(validation["context"])
    assert (len(train), len(validation)) == (36, 4)


def test_too_few_rows_to_hold_some_back_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"9 rows are too few to hold some back for validation; pass --validation"):
        hold_back(labelled({"a": 5, "b": 4}), 0.1, 0)
