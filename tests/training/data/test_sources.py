"""Labelled rows are found in files, in folders with splits and on the hub."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from encort.runtime.common.errors import DatasetError, EncortError
from encort.training.data.sources import find_sources

TWO = "text,label\nhello,a\nbye,b\n"
ROWS = [{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]

Write = Callable[..., Path]
ReadRows = Callable[..., list[dict[str, Any]]]
Refused = Callable[..., str]
MakeFolder = Callable[..., str]


@pytest.fixture
def rows(write: Write) -> ReadRows:
    """`rows(name, content, header=)`: the rows of a file with this content."""

    def read(name: str, content: str | bytes, **options: Any) -> list[dict[str, Any]]:
        return list(find_sources(str(write(name, content)), **options)["train"].rows())

    return read


@pytest.fixture
def refused(rows: ReadRows) -> Refused:
    """`refused(name, content, message)`: the text of an error that matches, and names the file."""

    def check(name: str, content: str | bytes, message: str, **options: Any) -> str:
        with pytest.raises(EncortError, match=message) as refusal:
            rows(name, content, **options)
        assert name in str(refusal.value)
        return str(refusal.value)

    return check


@pytest.fixture
def folder(write: Write) -> MakeFolder:
    """`folder(name, **files)`: a folder of .csv files by split."""

    def make(name: str, **files: str) -> str:
        return str([write(f"{name}/{split}.csv", content).parent for split, content in files.items()].pop())

    return make


def as_jsonl(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_parquet(**columns: Any) -> bytes:
    stream = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.table(columns), stream)
    content: bytes = stream.getvalue().to_pybytes()
    return content


# Files.


FORMATS: dict[str, str | bytes] = {
    "table.csv": TWO,
    "table.tsv": "text\tlabel\nhello\ta\nbye\tb\n",
    "table.jsonl": as_jsonl(*ROWS),
    "table.parquet": as_parquet(text=["hello", "bye"], label=["a", "b"]),
    "UPPER.CSV": TWO,
    "no newline at the end.csv": TWO.rstrip("\n"),
    "windows.csv": TWO.replace("\n", "\r\n"),
    "byte order mark.csv": "\ufeff" + TWO,
    "byte order mark.jsonl": "\ufeff" + as_jsonl(*ROWS),
    "quoted.csv": '"text","label"\n"hello","a"\n"bye","b"\n',
    "pandas.csv": ",text,label\n0,hello,a\n1,bye,b\n",
    "data[1].csv": TWO,
    "what?.csv": TWO,
    "test/hidden/.data.csv": TWO,
}


@pytest.mark.parametrize(("name", "content"), FORMATS.items(), ids=FORMATS)
def test_a_table_is_read(name: str, content: str | bytes, rows: ReadRows) -> None:
    assert rows(name, content) == ROWS


def test_a_name_with_wildcards_never_reads_another_file(rows: ReadRows, write: Write) -> None:
    write("data1.csv", "text,label\nwrong,x\nfile,y\n")
    assert rows("data[1].csv", TWO) == ROWS


QUOTES = {
    "quotes.tsv": 'text\tlabel\n"unbalanced\ta\nsay "hi", twice\tb\n',
    "quotes.csv": 'text,label\n"""unbalanced",a\n"say ""hi"", twice",b\n',
}


@pytest.mark.parametrize(("name", "content"), QUOTES.items(), ids=QUOTES)
def test_quotes_are_raw_in_tsv_and_doubled_in_csv(name: str, content: str, rows: ReadRows) -> None:
    assert [row["text"] for row in rows(name, content)] == ['"unbalanced', 'say "hi", twice']


def test_a_csv_text_may_have_lines_and_commas(rows: ReadRows) -> None:
    table = rows("table.csv", 'text,label\n"one\ntwo",a\n"three, four",b\n')
    assert [row["text"] for row in table] == ["one\ntwo", "three, four"]


STRINGS = ["NA", "null", "007", "nan", "1e5", "True", "2024-03-17", "2024-03-17T10:00:00Z"]


@pytest.mark.parametrize("name", ["table.csv", "table.tsv", "table.jsonl", "table.parquet"])
def test_strings_that_look_like_something_else_stay_strings(name: str, rows: ReadRows) -> None:
    expected = [{"text": string, "label": string} for string in STRINGS]
    content: str | bytes = {
        ".csv": "text,label\n" + "".join(f"{string},{string}\n" for string in STRINGS),
        ".tsv": "text\tlabel\n" + "".join(f"{string}\t{string}\n" for string in STRINGS),
        ".jsonl": as_jsonl(*expected),
        ".parquet": as_parquet(text=STRINGS, label=STRINGS),
    }[name[name.index(".") :]]
    assert rows(name, content) == expected


def test_conll_gives_tokens_with_tags(rows: ReadRows) -> None:
    assert rows("train.conll", "my O\ncard B-X\n\nhello O\n") == [
        {"text": "my card", "tokens": ["my", "card"], "tags": ["O", "B-X"]},
        {"text": "hello", "tokens": ["hello"], "tags": ["O"]},
    ]


@pytest.mark.parametrize(("name", "separator"), [("table.csv", ","), ("table.tsv", "\t")])
def test_a_table_without_a_header_gets_the_given_names(name: str, separator: str, rows: ReadRows) -> None:
    content = f"hello{separator}a\nbye{separator}b\n"
    assert rows(name, content, header=["text", "label"]) == ROWS


def test_columns_without_a_name_in_the_header_are_left_out(rows: ReadRows) -> None:
    assert rows("table.csv", "0,hello,a\n1,bye,b\n", header=["", "text", "label"]) == ROWS


def test_a_header_for_too_few_columns_is_refused(refused: Refused) -> None:
    refused("table.csv", "hello,a,1\n", "row 1 has more cells than the header", header=["text", "label"])


def test_a_header_for_a_file_with_names_is_refused(refused: Refused) -> None:
    refused("table.jsonl", as_jsonl(*ROWS), "only .csv and .tsv files lack", header=["text", "label"])


# Splits.


def test_every_split_has_its_file(write: Write) -> None:
    train, dev, test = (write(f"{name}.csv", f"text,label\n{name},x\n") for name in ("one", "two", "three"))
    sources = find_sources(str(train), validation=str(dev), test=str(test))
    assert {split: [row["text"] for row in source.rows()] for split, source in sources.items()} == {
        "train": ["one"],
        "validation": ["two"],
        "test": ["three"],
    }
    assert [source.name for source in sources.values()] == [str(train), str(dev), str(test)]


def test_the_version_is_a_hash_of_the_content(write: Write) -> None:
    versions = [find_sources(str(write(*file)))["train"].version for file in FORMATS.items()]
    assert versions[0] == find_sources(str(write("copy.csv", TWO)))["train"].version
    assert len(set(versions)) == len(set(FORMATS.values()))


def test_a_missing_file_is_refused(tmp_path: Path, write: Write) -> None:
    missing = str(tmp_path / "missing.csv")
    with pytest.raises(DatasetError, match=f"there is no file {re.escape(missing)}"):
        find_sources(missing)
    with pytest.raises(DatasetError, match=f"there is no file {re.escape(missing)}"):
        find_sources(str(write("train.csv", TWO)), test=missing)


@pytest.mark.parametrize("name", ["table.txt", "table.xlsx", "table"])
def test_an_unknown_ending_is_refused_with_the_known_ones(name: str, refused: Refused) -> None:
    refused(name, TWO, r"by its ending \(.csv, .tsv, .jsonl, .parquet, .conll, .json\)")


LATIN = "text,label\ncafé,a\nbye,b\n".encode("latin-1")
NOT_UTF_8 = {
    "header.csv": "tëxt,label\n".encode("latin-1"),
    "rows.csv": LATIN,
    "rows.tsv": LATIN.replace(b",", b"\t"),
    "late.csv": b"text,label\n" + b"hello,a\n" * 20_000 + b"caf\xe9,b\n",
    "utf-16.csv": TWO.encode("utf-16"),
    "rows.jsonl": as_jsonl({"text": "café", "label": "a"}).encode("latin-1"),
}


@pytest.mark.parametrize(("name", "content"), NOT_UTF_8.items(), ids=NOT_UTF_8)
def test_a_file_that_is_not_utf_8_is_refused(name: str, content: bytes, refused: Refused) -> None:
    refused(name, content, "is not UTF-8")


DAMAGED: dict[str, str | bytes] = {
    "cut.jsonl": '{"text": \n',
    "not parquet.parquet": b"not parquet",
    "an open quote.csv": 'text,label\n"never closed,a\nbye,b\n',
    "a comma in a row.csv": "text,label\nhello,a\nbye, then,b\n",
    "a comma in every row.csv": "text,label\nhello, you,a\nbye, then,b\n",
    "no tag.conll": "hello O\nbye\n",
    "other.json": "5",
}


@pytest.mark.parametrize(("name", "content"), DAMAGED.items(), ids=DAMAGED)
def test_a_damaged_table_is_refused_with_a_reason(name: str, content: str | bytes, refused: Refused) -> None:
    assert not refused(name, content, ".").endswith(": ")


# Folders with splits.


def test_a_folder_gives_all_its_splits(folder: MakeFolder) -> None:
    data = folder("data", train=TWO, validation="text,label\none,a\n", test="text,label\ntwo,b\n")
    sources = find_sources(data)
    assert list(sources) == ["train", "validation", "test"]
    assert list(sources["train"].rows()) == ROWS
    assert list(sources["validation"].rows()) == [{"text": "one", "label": "a"}]
    assert list(sources["test"].rows()) == [{"text": "two", "label": "b"}]
    assert all(source.name.startswith(data) and split in source.name for split, source in sources.items())


@pytest.mark.parametrize("name", ["validation", "valid", "val", "dev"])
def test_a_validation_split_has_many_names(name: str, folder: MakeFolder) -> None:
    sources = find_sources(folder("data", train=TWO, **{name: "text,label\none,a\n"}))
    assert [row["text"] for row in sources["validation"].rows()] == ["one"]


def test_a_split_is_found_under_the_name_that_its_card_gives(folder: MakeFolder, write: Write) -> None:
    data = folder("data", one=TWO, two="text,label\none,a\n")
    files = "".join(f"  - split: {split}\n    path: {file}.csv\n" for split, file in (("train", "one"), ("dev", "two")))
    write("data/README.md", f"---\nconfigs:\n- config_name: default\n  data_files:\n{files}---\n")
    sources = find_sources(data)
    assert [row["text"] for row in sources["validation"].rows()] == ["one"]


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("name", ["itself", "train"])
def test_a_folder_gives_the_split_of_that_name_or_its_only_one(
    name: str, split: str, write: Write, folder: MakeFolder
) -> None:
    other = folder("other", **{split if name == "itself" else name: "text,label\none,a\n"})
    sources = find_sources(str(write("train.csv", TWO)), **{split: other})
    assert list(sources) == ["train", split]
    assert [row["text"] for row in sources[split].rows()] == ["one"]


def test_a_file_takes_the_place_of_a_split(write: Write, folder: MakeFolder) -> None:
    data = folder("data", train=TWO, validation="text,label\none,a\n", test="text,label\ntwo,b\n")
    sources = find_sources(data, validation=str(write("mine.csv", "text,label\nthree,a\n")))
    assert [row["text"] for row in sources["validation"].rows()] == ["three"]
    assert [row["text"] for row in sources["test"].rows()] == ["two"]


def test_a_folder_without_the_split_is_refused_with_its_splits(folder: MakeFolder) -> None:
    data = folder("data", test=TWO)
    with pytest.raises(DatasetError, match=f"{re.escape(data)} has no split train; it has: test"):
        find_sources(data)
    with pytest.raises(DatasetError, match="has no split validation; it has: test"):
        find_sources(folder("other", train=TWO), validation=data)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_training_rows_are_never_taken_for_validation_or_test(split: str, folder: MakeFolder) -> None:
    data = folder("data", train=TWO, **{"test" if split == "validation" else "validation": TWO})
    with pytest.raises(DatasetError, match=f"has no split {split}"):
        find_sources(data, **{split: data})


@pytest.mark.parametrize("name", ["no-such-dataset", "someone/no-such-dataset", "table.txt"])
def test_a_name_that_is_nowhere_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match=f"^{name} is no folder of splits, nor a dataset that the hub gives: ."):
        find_sources(name)


def test_a_path_to_nothing_never_asks_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset", lambda _: pytest.fail("it asked"))
    for name in (str(tmp_path / "missing"), "./missing", "../missing"):
        with pytest.raises(DatasetError, match=f"{re.escape(name)} is no folder"):
            find_sources(name)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="doesn't contain any data files"):
        find_sources(str(tmp_path))


def test_a_changed_folder_is_another_version(folder: MakeFolder, write: Write) -> None:
    data = folder("data", train=TWO)
    before = find_sources(data)["train"].version
    assert find_sources(data)["train"].version == before
    write("data/train.csv", TWO + "more,a\n")
    changed = find_sources(data)["train"]
    assert changed.version != before
    assert [row["text"] for row in changed.rows()] == ["hello", "bye", "more"]


CLASSES = datasets.ClassLabel(names=["no", "yes"])


@pytest.fixture
def with_classes(tmp_path: Path) -> Callable[..., list[Any]]:
    """`with_classes(labels, feature)`: the labels of a folder in which `datasets` keeps them as numbers."""

    def make(labels: list[Any], feature: Any, name: str = "train-00000-of-00001") -> list[Any]:
        features = datasets.Features({"text": datasets.Value("string"), "label": feature})
        table = datasets.Dataset.from_dict({"text": ["hello"] * len(labels), "label": labels}, features=features)
        (tmp_path / "classes").mkdir()
        table.to_parquet(tmp_path / "classes" / f"{name}.parquet")
        return [row["label"] for row in find_sources(str(tmp_path / "classes"))["train"].rows()]

    return make


def test_class_labels_are_read_by_name(with_classes: Callable[..., list[Any]]) -> None:
    assert with_classes([1, 0, None], CLASSES) == ["yes", "no", None]


def test_class_labels_are_read_by_name_whatever_the_file_is_called(with_classes: Callable[..., list[Any]]) -> None:
    assert with_classes([1, 0], CLASSES, name="train") == ["yes", "no"]


def test_a_class_label_of_minus_one_has_no_name(with_classes: Callable[..., list[Any]]) -> None:
    assert with_classes([1, -1], CLASSES) == ["yes", -1]


def test_lists_of_class_labels_are_read_by_name(with_classes: Callable[..., list[Any]]) -> None:
    assert with_classes([[1, 0], [], [1]], datasets.List(CLASSES)) == [["yes", "no"], [], ["yes"]]


def test_a_list_of_class_labels_may_be_missing(with_classes: Callable[..., list[Any]]) -> None:
    assert with_classes([[1], None], datasets.List(CLASSES)) == [["yes"], None]


def test_a_table_in_a_folder_is_read_like_a_single_table(folder: MakeFolder, write: Write) -> None:
    content = "text,label\nNA,007\nnull,8\n"
    file, data = write("alone.csv", content), folder("data", train=content)
    assert list(find_sources(data)["train"].rows()) == list(find_sources(str(file))["train"].rows())


def test_a_folder_of_tables_takes_the_header(folder: MakeFolder) -> None:
    data = folder("data", train="hello,a\nbye,b\n")
    assert list(find_sources(data, header=["text", "label"])["train"].rows()) == ROWS


def test_class_numbers_of_every_dataset_become_names(tmp_path: Path) -> None:
    """Parquet, a folder of Parquet files and a folder that `save_to_disk` wrote give the same rows."""
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-who"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    rows = datasets.Dataset.from_dict({"tokens": [["my", "Ann"]], "ner_tags": [[0, 1]]}, features=features)
    rows.to_parquet(tmp_path / "folder/train.parquet")
    rows.save_to_disk(tmp_path / "saved")
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "splits")
    for name in ("folder/train.parquet", "folder", "saved", "splits"):
        source = find_sources(str(tmp_path / name))["train"]
        assert list(source.rows()) == [{"tokens": ["my", "Ann"], "ner_tags": ["O", "B-who"]}]
