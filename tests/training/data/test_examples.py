import json
import re

import datasets
import pytest

from encort.runtime.common.errors import DatasetError
from encort.training.data import examples
from encort.training.data.cells import RowError
from encort.training.data.examples import check_roles, find_columns, hold_back, read_examples, sorted_labels
from encort.training.data.problems import Problems
from encort.training.data.sources import find_sources
from encort.training.tasks.next_sentence import DualEncoderTask
from encort.training.tasks.question_answering import QuestionAnswering
from encort.training.tasks.sentence_embedding import SentenceEmbedding
from encort.training.tasks.text_classification import MultiLabelClassification, TextClassification, TextRegression
from encort.training.tasks.token_classification import TokenClassification

TWO = "text,label\nhello,a\nbye,b\n"


@pytest.fixture
def check():
    """`check(task, train, validation=, test=, columns=, header=)`: splits and labels, or a DatasetError with all."""

    def check_all(task, train, *, columns=None, **options):
        paths = {name: str(value) for name, value in options.items() if name != "header" and value is not None}
        sources = find_sources(str(train), header=options.get("header"), **paths)
        problems, splits = Problems(), {}
        check_roles(task.schema, columns or {}, problems)
        for split, source in sources.items():
            names = find_columns(source, task.schema, problems, asked=columns or {})
            rows = names and read_examples(source, task.schema, problems, names=names, key=task.key)
            splits |= {split: rows} if rows else {}
        labels = task.labels(splits, sources, problems) if "train" in splits else []
        problems.check()
        return splits, labels

    return check_all


@pytest.fixture
def load(check, write):
    """`load(name, content, task=, columns=)`: texts and labels of the rows, and all labels."""

    def load_table(name, content, task=TextClassification, **options):
        splits, labels = check(task(), write(name, content), **options)
        return splits["train"]["text"][:], splits["train"]["label"][:], labels

    return load_table


@pytest.fixture
def refused(load):
    """`refused(name, content, message)`: a DatasetError whose message matches, and names the file."""

    def check_refusal(name, content, message, **options):
        with pytest.raises(DatasetError, match=message) as refusal:
            load(name, content, **options)
        assert name in str(refusal.value)
        return str(refusal.value)

    return check_refusal


def as_jsonl(*rows):
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
def test_columns_are_found_by_convention_or_role(header, columns, load):
    content = f"{header}\nhello,1,a\nbye,2,b\n"
    assert load("table.csv", content, columns=columns)[:2] == (["hello", "bye"], ["a", "b"])


@pytest.mark.parametrize(
    ("header", "columns"), [("text,category", {}), ("category,text", {}), ("words,intent", {"text": "words"})]
)
def test_the_only_other_column_is_the_label(header, columns, load):
    rows = ["a,hello", "b,bye"] if header == "category,text" else ["hello,a", "bye,b"]
    assert load("table.csv", "\n".join([header, *rows]), columns=columns)[:2] == (["hello", "bye"], ["a", "b"])


def test_the_second_text_is_never_taken_for_the_label(check, write):
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
def test_a_missing_column_is_refused_with_those_there_are(header, columns, message, refused):
    refused("table.csv", f"{header}\nhello,a,1\nbye,b,2\n", message, columns=columns)


def test_a_table_of_texts_alone_is_refused(refused):
    refused("table.csv", "text\nhello\nbye\n", "has no column 'label_text' or 'label'")


def test_a_role_that_the_task_does_not_have_is_refused_with_those_it_has(load):
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
def test_labels_are_sorted_by_number_if_all_are_numbers(labels, expected, load):
    rows = "".join(f"hello,{label}\n" for label in labels)
    assert load("table.csv", f"text,label\n{rows}")[1:] == (labels, expected)
    assert sorted_labels(labels * 2) == expected


@pytest.mark.parametrize(
    ("labels", "names"),
    [([1, 0], ["1", "0"]), ([True, False], ["True", "False"]), ([1, "x"], ["1", "x"]), ([" x ", "y\t"], ["x", "y"])],
    ids=["numbers", "booleans", "mixed", "spaces"],
)
def test_labels_are_names(labels, names, load):
    assert load("table.jsonl", as_jsonl(*({"text": "hello", "label": label} for label in labels)))[1] == names


def test_a_jsonl_column_of_dates_stays_strings(load):
    days = ["2024-03-17", "2024-03-18"]
    assert load("days.jsonl", as_jsonl(*({"text": day, "label": day} for day in days))) == (days, days, days)


def test_one_label_only_is_refused(refused):
    refused("table.csv", "text,label\nhello,a\nbye,a\n", r"has 1 label\(s\), a; a classifier needs at least 2")


def test_labels_that_training_has_not_seen_are_listed_by_row(check, write):
    validation = write("validation.csv", "text,label\nhello,a\nbye,c\nhello,b\nbye,d\nhello,c\n")
    test = write("test.csv", "text,label\nhello,c\n")
    with pytest.raises(DatasetError) as refusal:
        check(TextClassification(), write("train.csv", TWO), validation=validation, test=test)
    assert str(refusal.value).splitlines()[1:] == [
        f"  {validation}: label 'c' is not in the training data: rows 2, 5",
        f"  {validation}: label 'd' is not in the training data: row 4",
        f"  {test}: label 'c' is not in the training data: row 1",
    ]


def test_labels_that_validation_lacks_are_fine(check, write):
    validation = write("validation.csv", "text,label\nhello,b\n")
    splits, labels = check(TextClassification(), write("train.csv", TWO), validation=validation)
    assert (labels, splits["validation"]["label"][:]) == (["a", "b"], ["b"])


# Several labels, separated by bars in tables of text.


def test_lists_and_bars_are_the_same_labels(load):
    rows = [["b", "a"], [], ["a"]]
    as_lists = as_jsonl(*({"text": "hello", "labels": row} for row in rows))
    as_bars = "text,labels\n" + "".join(f"hello,{' | '.join(row)}\n" for row in rows)
    for name, content in (("table.jsonl", as_lists), ("table.csv", as_bars)):
        assert load(name, content, task=MultiLabelClassification)[1:] == (rows, ["a", "b"])


def test_bars_around_nothing_are_no_labels(load):
    assert load("table.csv", "text,labels\nhello,|a||b|\nbye, | \n", task=MultiLabelClassification)[1:] == (
        [["a", "b"], []],
        ["a", "b"],
    )


def test_one_of_several_labels_is_enough(load):
    assert load("table.csv", "text,labels\nhello,a\nbye,\n", task=MultiLabelClassification)[2] == ["a"]


def test_no_labels_at_all_are_refused(refused):
    refused("table.csv", "text,labels\nhello,\nbye,|\n", "has 0 label", task=MultiLabelClassification)


def test_what_is_no_list_of_labels_is_listed_by_row(refused):
    labels = [["a"], [1], None, {"a": 1}, 3]
    content = as_jsonl(*({"text": "hello", "labels": each} for each in labels))
    refused("table.jsonl", content, "label is not a list of texts: rows 2, 3, 4, 5$", task=MultiLabelClassification)


def test_labels_of_a_list_are_stripped_as_those_between_bars(load):
    content = as_jsonl({"text": "hello", "labels": ["a ", "b"]}, {"text": "bye", "labels": ["a", ""]})
    assert load("table.jsonl", content, task=MultiLabelClassification)[2] == ["a", "b"]


# Scores.


def test_scores_are_numbers_and_strings_of_numbers(load):
    for name, content in (
        ("table.csv", "text,score\nhello,1\nbye,-2.5\nnow,1e-3\n"),
        (
            "table.jsonl",
            as_jsonl({"text": "hello", "label": 1}, {"text": "bye", "label": -2.5}, {"text": "now", "label": "1e-3"}),
        ),
    ):
        assert load(name, content, task=TextRegression)[1] == pytest.approx([1, -2.5, 1e-3])


@pytest.mark.parametrize("score", ["", "nan", "inf", "-inf", "1e400", "high", "1,5", True, None, [1]])
def test_what_is_no_score_is_refused(score, refused):
    content = as_jsonl({"text": "hello", "score": 1}, {"text": "bye", "score": score})
    refused("table.jsonl", content, "the score is not a number: row 2$", task=TextRegression)


@pytest.mark.parametrize("score", ["1e39", "1" + "0" * 400])
def test_a_score_too_large_to_learn_is_refused_by_row(score, refused):
    content = f'{{"text": "hello", "score": 1}}\n{{"text": "bye", "score": {score}}}\n'
    refused("table.jsonl", content, "row 2", task=TextRegression)


# What is refused.


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl"])
@pytest.mark.parametrize("content", ["", "text\tlabel\n"], ids=["empty", "header alone"])
def test_a_file_without_rows_is_refused(name, content, refused):
    if name == "table.jsonl" and content:
        content = "\ufeff"
    refused(name, content, "has no rows")


def test_a_damaged_row_is_refused_with_what_the_reader_said(refused):
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
def test_rows_without_text_or_label_are_all_listed(name, content, refused):
    message = refused(name, content, "^this cannot be trained on:\n")
    assert re.findall(r": ([\w ]+: rows? .*)", message) == [
        "no text: rows 2, 6, 7",
        "text is empty: row 3",
        "no label: rows 4, 5, 7",
    ]


@pytest.mark.parametrize(
    ("task", "row", "problems"),
    [
        (TextClassification, {"text_pair": " "}, ["no text", "text_pair is empty", "no label"]),
        (MultiLabelClassification, {"text": ["x"]}, ["text is not a text", "label is not a list of texts"]),
        (TextRegression, {"text": " ", "label": "high"}, ["text is empty", "the score is not a number"]),
        (SentenceEmbedding, {"text": "a", "label": None}, ["no text_pair", "the score is not a number"]),
        (DualEncoderTask, {"text": " ", "label": "yes"}, ["text is empty", "no text_pair", "label is none of 1, .*"]),
        (
            TokenClassification,
            {"tokens": ["my", ""], "label": [" "]},
            ["a token is empty", "fewer .*", "a tag is empty"],
        ),
        (TokenClassification, {"tokens": "my", "label": ["S-X"]}, ["tokens is not a list of texts", "tags are of .*"]),
        (
            QuestionAnswering,
            {"context": "card", "label": ["pin", ""], "answer_start": [0, 0]},
            ["no question", "an answer is empty", "an answer is not in its context at answer_start"],
        ),
        (
            QuestionAnswering,
            {"label": [" "], "answer_start": [0.5, 1]},
            ["no question", "no context", "an .*", "ans.*"],
        ),
    ],
)
def test_a_row_is_told_for_all_that_is_wrong_with_it(task, row, problems):
    with pytest.raises(RowError) as refused:
        task().schema.example(row)
    assert len(refused.value.args) == len(problems)
    assert all(map(re.fullmatch, problems, refused.value.args))


WRONG = {
    "text is not a text": {"text": ["hello"], "label": "a"},
    "label is not a text or a whole number": {"text": "hello", "label": 1.5},
    "no text_pair": {"text": "hello", "label": "a", "text_pair": ""},
    "text_pair is empty": {"text": "hello", "label": "a", "text_pair": " "},
}


@pytest.mark.parametrize(("problem", "row"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_refused_by_row(problem, row, refused):
    good = {"text": "hello", "label": "a"} | ({"text_pair": "you"} if "text_pair" in row else {})
    refused("table.jsonl", as_jsonl(good, row, good), rf"table.jsonl: {problem}: row 2$")


def test_a_long_list_of_rows_is_cut(refused):
    message = refused("table.csv", "text,label\nhello,a\n" + ",b\n" * 25, "no text: rows ")
    assert message.endswith(", 20, 21 and 5 more")
    assert message.count("no text") == 1
    numbers = "text,label\nhello,a\n" + ",b\n" * 20
    assert "more" not in refused("table.csv", numbers, "no text: rows 2, .*, 21$")


def test_problems_of_all_splits_are_listed_together(check, write):
    with pytest.raises(DatasetError) as refusal:
        check(
            TextClassification(),
            write("train.csv", "text,label\nhello,a\n,b\n"),
            validation=write("validation.csv", "words,id,kind\nbye,1,a\n"),
            test=write("test.csv", "text,label\nhello,c\nbye,\n"),
        )
    found = str(refusal.value)
    for problem in (
        r"train.csv has 1 label\(s\)",
        r"train.csv: no text: row 2$",
        r"validation.csv has no column 'text'",
        r"test.csv: label 'c' is not in the training data: row 1$",
        r"test.csv: no label: row 2$",
    ):
        assert re.search(problem, found, re.MULTILINE), problem


def test_a_first_row_without_a_label_is_one_row_without_a_label(refused):
    refused("table.jsonl", as_jsonl({"text": "hello"}, {"text": "bye", "label": "b"}), "no label: row 1")


def test_a_second_text_is_never_dropped_because_the_first_row_has_none(refused):
    rows = {"text": "hello", "label": "a"}, {"text": "bye", "text_pair": "now", "label": "b"}
    refused("table.jsonl", as_jsonl(*rows), "no text_pair: row 1")


def test_half_a_character_is_refused_by_file(refused):
    refused("table.jsonl", '{"text": "hello", "label": "a"}\n{"text": "\\ud800", "label": "b"}\n', "row 2")


# The cache.


@pytest.fixture
def conversions(monkeypatch):
    """A list that grows by one with every file that is converted."""
    seen, convert = [], examples._generate

    def remember(source, schema, names):
        seen.append(source.name)
        yield from convert(source, schema, names)

    monkeypatch.setattr(examples, "_generate", remember)
    return seen


def test_what_was_converted_is_memory_mapped_and_not_converted_again(check, write, conversions):
    file = write("cached.csv", TWO + "once,a\n")
    first, again = (check(TextClassification(), file)[0]["train"] for _ in range(2))
    assert conversions == [str(file)]
    assert first.cache_files == again.cache_files != []
    assert again["text"][:] == ["hello", "bye", "once"]


def test_a_copy_is_not_converted_again_but_its_problems_are_its_own(check, write, conversions):
    for name in ("one.csv", "two.csv"):
        with pytest.raises(DatasetError, match=f"{name}: no text: row 2"):
            check(TextClassification(), write(name, "text,label\nonce,a\n,b\n"))
    assert len(conversions) == 1


CHANGES = {
    "content": ({"content": TWO + "more,a\n"}, ["hello", "bye", "more"]),
    "columns": ({"columns": {"text": "label", "label": "text"}}, ["a", "b"]),
    "header": ({"header": ["label", "text"]}, ["label", "a", "b"]),
}


@pytest.mark.parametrize(("options", "texts"), CHANGES.values(), ids=CHANGES)
def test_what_changed_is_read_anew(options, texts, check, write):
    options = dict(options)
    assert check(TextClassification(), write("table.csv", TWO))[0]["train"]["text"][:] == ["hello", "bye"]
    file = write("table.csv", options.pop("content", TWO))
    assert check(TextClassification(), file, **options)[0]["train"]["text"][:] == texts


def test_another_task_reads_anew(check, write):
    file = write("table.csv", "text,label\nhello,1\nbye,2\n")
    found = [check(task(), file)[0]["train"]["label"][:] for task in (TextClassification, TextRegression)]
    assert found == [["1", "2"], [1.0, 2.0]]


# Holding a validation set back.


def labelled(counts):
    rows = [(f"{label} {n}", label) for label, count in counts.items() for n in range(count)]
    return datasets.Dataset.from_dict({"text": [text for text, _ in rows], "label": [label for _, label in rows]})


def test_a_tenth_of_every_label_is_held_back():
    train, validation = hold_back(labelled({"a": 40, "b": 20}), 0.1, 0)
    assert sorted(validation["label"][:]) == ["a"] * 4 + ["b"] * 2
    assert len(train) == 54
    assert set(train["text"][:]).isdisjoint(validation["text"][:])
    assert train.column_names == validation.column_names == ["text", "label"]


def test_the_seed_chooses_what_is_held_back():
    rows = labelled({"a": 40, "b": 20})
    held_back = [hold_back(rows, 0.1, seed)[1]["text"][:] for seed in (0, 0, 1)]
    assert held_back[0] == held_back[1] != held_back[2]


@pytest.mark.parametrize(
    "counts",
    [{"a": 60, "b": 1}, {"a": 5, "b": 5}, {str(label): 2 for label in range(30)}],
    ids=["one of a label", "few rows", "more labels than are held back"],
)
def test_a_tenth_is_held_back_where_it_cannot_be_of_every_label(counts):
    rows = labelled(counts)
    train, validation = hold_back(rows, 0.1, 0)
    assert sorted([*train["text"], *validation["text"]]) == sorted(rows["text"])
    assert len(validation) == -(-len(rows) // 10)


def test_too_few_rows_to_hold_some_back_are_refused():
    with pytest.raises(DatasetError, match=r"9 rows are too few to hold some back for validation; pass --validation"):
        hold_back(labelled({"a": 5, "b": 4}), 0.1, 0)
