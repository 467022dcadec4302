import json
import re

import pyarrow
import pytest
from pyarrow import parquet

from encort.runtime.errors import DatasetError
from encort.training.data import load_labelled_texts

TWO = "text,label\nhello,a\nbye,b\n"


@pytest.fixture
def load(write):
    """`load(name, content)`: `(texts, label names of the rows, all labels)` of a table."""

    def load_table(name, content, **options):
        file = write(name, content)
        data = load_labelled_texts(file, file, seed=0, **options)
        return data.train["text"][:], [data.labels[index] for index in data.train["label"]], data.labels

    return load_table


@pytest.fixture
def refused(load):
    """`refused(name, content, message)`: a DatasetError whose message matches, and names the file."""

    def check(name, content, message, **options):
        with pytest.raises(DatasetError, match=message) as refusal:
            load(name, content, **options)
        assert name in str(refusal.value)
        return str(refusal.value)

    return check


def as_jsonl(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_parquet(**columns):
    stream = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), stream)
    return stream.getvalue().to_pybytes()


# Files.


FORMATS = {
    "table.csv": TWO,
    "table.tsv": "text\tlabel\nhello\ta\nbye\tb\n",
    "table.jsonl": as_jsonl({"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}),
    "table.parquet": as_parquet(text=["hello", "bye"], label=["a", "b"]),
    "UPPER.CSV": TWO,
    "no newline at the end.csv": TWO.rstrip("\n"),
    "windows.csv": TWO.replace("\n", "\r\n"),
    "byte order mark.csv": "\ufeff" + TWO,
    "byte order mark.jsonl": "\ufeff" + as_jsonl({"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}),
    "quoted.csv": '"text","label"\n"hello","a"\n"bye","b"\n',
    "data[1].csv": TWO,
    "what?.csv": TWO,
    "test/hidden/.data.csv": TWO,
}


@pytest.mark.parametrize(("name", "content"), FORMATS.items(), ids=FORMATS)
def test_a_table_is_read(name, content, load):
    assert load(name, content) == (["hello", "bye"], ["a", "b"], ["a", "b"])


def test_a_name_with_wildcards_never_reads_another_file(load, write):
    write("data1.csv", "text,label\nwrong,x\nfile,y\n")
    assert load("data[1].csv", TWO)[0] == ["hello", "bye"]


QUOTES = {
    "quotes.tsv": 'text\tlabel\n"unbalanced\ta\nsay "hi", twice\tb\n',
    "quotes.csv": 'text,label\n"""unbalanced",a\n"say ""hi"", twice",b\n',
}


@pytest.mark.parametrize(("name", "content"), QUOTES.items(), ids=QUOTES)
def test_quotes_are_raw_in_tsv_and_doubled_in_csv(name, content, load):
    assert load(name, content)[0] == ['"unbalanced', 'say "hi", twice']


def test_a_csv_text_may_have_lines_and_commas(load):
    assert load("table.csv", 'text,label\n"one\ntwo",a\n"three, four",b\n')[0] == ["one\ntwo", "three, four"]


STRINGS = ["NA", "null", "007", "nan", "1e5", "True", "2024-03-17", "2024-03-17T10:00:00Z"]


@pytest.mark.parametrize("string", STRINGS)
@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl", "table.parquet"])
def test_strings_that_look_like_something_else_stay_strings(name, string, load):
    rows = [(string, "x"), (string, string)]
    content = {
        ".csv": "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows),
        ".tsv": "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows),
        ".jsonl": as_jsonl(*({"text": text, "label": label} for text, label in rows)),
        ".parquet": as_parquet(text=[text for text, _ in rows], label=[label for _, label in rows]),
    }[name[name.index(".") :]]
    texts, labels, _ = load(name, content)
    assert (texts, labels) == ([string, string], ["x", string])


def test_a_jsonl_column_of_dates_stays_strings(load):
    days = ["2024-03-17", "2024-03-18"]
    assert load("days.jsonl", as_jsonl(*({"text": day, "label": day} for day in days))) == (days, days, days)


@pytest.mark.parametrize(
    ("labels", "names"),
    [([1, 0], ["1", "0"]), ([True, False], ["true", "false"]), ([1, "x"], ["1", "x"])],
    ids=["numbers", "booleans", "mixed"],
)
def test_jsonl_labels_need_not_be_strings(labels, names, load):
    rows = [{"text": "hello", "label": label} for label in labels]
    assert [name.lower() for name in load("table.jsonl", as_jsonl(*rows))[1]] == names


def test_the_unnamed_index_column_of_pandas_is_left_out(load):
    assert load("pandas.csv", ",text,label\n0,hello,a\n1,bye,b\n")[:2] == (["hello", "bye"], ["a", "b"])


# Columns.


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("text,label,label_text", {}),
        ("text,number,label_text", {}),
        ("text,number,label", {}),
        ("label_text,label,text", {"label_column": "text", "text_column": "label_text"}),
        ("utterance,id,intent", {"text_column": "utterance", "label_column": "intent"}),
        ("text,label,intent", {"label_column": "intent"}),
    ],
)
def test_columns_are_found_by_convention_or_option(header, options, load):
    content = f"{header}\nhello,1,a\nbye,2,b\n"
    assert load("table.csv", content, **options)[:2] == (["hello", "bye"], ["a", "b"])


@pytest.mark.parametrize(
    ("header", "options"), [("text,category", {}), ("category,text", {}), ("words,intent", {"text_column": "words"})]
)
def test_the_only_other_column_is_the_label(header, options, load):
    rows = ["a,hello", "b,bye"] if header == "category,text" else ["hello,a", "bye,b"]
    assert load("table.csv", "\n".join([header, *rows]), **options)[:2] == (["hello", "bye"], ["a", "b"])


@pytest.mark.parametrize(
    ("header", "options", "message"),
    [
        ("words,label,id", {}, "has no column 'text'; it has: words, label, id"),
        ("text,one,two", {}, "has no column 'label_text' or 'label'; it has: text, one, two"),
        ("text,label,id", {"text_column": "words"}, "has no column 'words'"),
        ("text,label,id", {"label_column": "intent"}, "has no column 'intent'.*--label-column"),
    ],
)
def test_a_missing_column_is_refused_with_those_there_are(header, options, message, refused):
    refused("table.csv", f"{header}\nhello,a,1\nbye,b,2\n", message, **options)


def test_a_table_of_texts_alone_is_refused(refused):
    refused("table.csv", "text\nhello\nbye\n", "has no column 'label_text' or 'label'")


# Labels.


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["10", "9", "-1", "2"], ["-1", "2", "9", "10"]),
        (["b", "B", "ä", "a"], ["B", "a", "b", "ä"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["7", "007", "0007", "07", "00007", "000007"], ["000007", "00007", "0007", "007", "07", "7"]),
    ],
)
def test_labels_are_sorted_by_number_if_all_are_numbers(labels, expected, load):
    rows = "".join(f"hello,{label}\n" for label in labels)
    assert load("table.csv", f"text,label\n{rows}")[1:] == (labels, expected)


def test_one_label_only_is_refused(refused):
    refused("table.csv", "text,label\nhello,a\nbye,a\n", "one label only, 'a'")


def test_labels_that_training_has_not_seen_are_listed_by_row(write):
    train = write("train.csv", TWO)
    validation = write("validation.csv", "text,label\nhello,a\nbye,c\nhello,b\nbye,d\n")
    with pytest.raises(DatasetError) as refusal:
        load_labelled_texts(train, validation, seed=0)
    assert "validation.csv, row 2: label 'c' is not in the training data" in str(refusal.value)
    assert "validation.csv, row 4: label 'd' is not in the training data" in str(refusal.value)
    assert str(refusal.value).count("row ") == 2


def test_labels_that_validation_lacks_are_fine(write):
    data = load_labelled_texts(write("train.csv", TWO), write("validation.csv", "text,label\nhello,b\n"), seed=0)
    assert (data.labels, data.validation["label"][:]) == (["a", "b"], [1])


# What is refused.


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for missing in (tmp_path / "missing.csv", tmp_path):
        with pytest.raises(DatasetError, match=f"there is no file {re.escape(str(missing))}"):
            load_labelled_texts(missing, None, seed=0)


@pytest.mark.parametrize("name", ["table.txt", "table.xlsx", "table"])
def test_an_unknown_ending_is_refused_with_the_known_ones(name, refused):
    refused(name, TWO, "unknown ending; use one of .csv, .tsv, .jsonl, .parquet")


LATIN = "text,label\ncafé,a\nbye,b\n".encode("latin-1")
NOT_UTF_8 = {
    "header.csv": "tëxt,label\n".encode("latin-1"),
    "rows.csv": LATIN,
    "rows.tsv": LATIN.replace(b",", b"\t"),
    "late.csv": b"text,label\n" + b"hello,a\n" * 20_000 + b"caf\xe9,b\n",
    "utf-16.csv": TWO.encode("utf-16"),
    "rows.jsonl": as_jsonl({"text": "café", "label": "a"}, {"text": "bye", "label": "b"}).encode("latin-1"),
}


@pytest.mark.parametrize(("name", "content"), NOT_UTF_8.items(), ids=NOT_UTF_8)
def test_a_file_that_is_not_utf_8_is_refused(name, content, refused):
    refused(name, content, "(?i)utf-?8")


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl"])
def test_an_empty_file_is_refused(name, refused):
    refused(name, "", "is empty|has no rows")


NO_ROWS = {
    "table.csv": "text,label\n",
    "table.tsv": "text\tlabel\n",
    "table.parquet": as_parquet(text=pyarrow.array([], "string"), label=pyarrow.array([], "string")),
}


@pytest.mark.parametrize(("name", "content"), NO_ROWS.items(), ids=NO_ROWS)
def test_a_header_without_rows_is_refused(name, content, refused):
    refused(name, content, "has no rows")


DAMAGED = {
    "cut.jsonl": '{"text": \n',
    "lists as texts.jsonl": as_jsonl({"text": ["a"], "label": "a"}, {"text": ["b"], "label": "b"}),
    "no objects.jsonl": "[1, 2]\n",
    "not parquet.parquet": b"not parquet",
    "an open quote.csv": 'text,label\n"never closed,a\nbye,b\n',
    "a comma in a row.csv": "text,label\nhello,a\nbye, then,b\n",
    "a comma in every row.csv": "text,label\nhello, you,a\nbye, then,b\n",
}


@pytest.mark.parametrize(("name", "content"), DAMAGED.items(), ids=DAMAGED)
def test_a_damaged_table_is_refused_with_a_reason(name, content, refused):
    assert not refused(name, content, ".").endswith(": ")


GAPS = {
    "table.csv": 'text,label\nhello,a\n,b\n"   ",b\nbye,\n,\n',
    "table.tsv": "text\tlabel\nhello\ta\n\tb\n   \tb\nbye\t\n\t\n",
    "table.jsonl": as_jsonl(
        {"text": "hello", "label": "a"},
        {"text": None, "label": "b"},
        {"text": "   ", "label": "b"},
        {"text": "bye"},
        {"text": "", "label": ""},
    ),
    "table.parquet": as_parquet(text=["hello", None, "   ", "bye", ""], label=["a", "b", "b", None, ""]),
}


@pytest.mark.parametrize(("name", "content"), GAPS.items(), ids=GAPS)
def test_rows_without_text_or_label_are_all_listed(name, content, refused):
    message = refused(name, content, "cannot be trained on")
    assert re.findall(r"row (\d+: no \w+)", message) == [
        "2: no text",
        "3: no text",
        "4: no label",
        "5: no text",
        "5: no label",
    ]


def test_a_row_with_too_few_fields_lacks_its_label(refused):
    refused("table.csv", "text,label\nhello,a\nbye\n", "row 2: no label")


def test_a_long_list_of_problems_is_cut(refused):
    message = refused("table.csv", "text,label\nhello,a\n" + ",b\n" * 25, "cannot be trained on")
    assert message.count("no text") == 10
    assert message.endswith("and 15 more")


def test_problems_of_the_validation_file_are_listed_together(write):
    validation = write("validation.csv", "text,label\n,a\nbye,\nhello,c\n")
    with pytest.raises(DatasetError) as refusal:
        load_labelled_texts(write("train.csv", TWO), validation, seed=0)
    assert re.findall(r"row (\d+: \w+ '?\w+)", str(refusal.value)) == ["1: no text", "2: no label", "3: label 'c"]


# Holding a validation set back.


def labelled(counts):
    return "text,label\n" + "".join(f"{label} {n},{label}\n" for label, count in counts.items() for n in range(count))


def test_a_tenth_of_every_label_is_held_back(write):
    data = load_labelled_texts(write("table.csv", labelled({"a": 40, "b": 20})), None, seed=0)
    assert sorted(data.validation["label"][:]) == [0] * 4 + [1] * 2
    assert len(data.train) == 54
    assert set(data.train["text"][:]).isdisjoint(data.validation["text"][:])


def test_the_seed_chooses_what_is_held_back(write):
    file = write("table.csv", labelled({"a": 40, "b": 20}))
    held_back = [load_labelled_texts(file, None, seed=seed).validation["text"][:] for seed in (0, 0, 1)]
    assert held_back[0] == held_back[1] != held_back[2]


@pytest.mark.parametrize("counts", [{"a": 5, "b": 5}, {"a": 60, "b": 1}], ids=["few rows", "one of a label"])
def test_too_few_rows_to_hold_some_back_are_refused(counts, write):
    with pytest.raises(DatasetError, match=r"too few rows to hold a validation set back.*--validation"):
        load_labelled_texts(write("table.csv", labelled(counts)), None, seed=0)
