"""Texts from arguments, tables, lines and standard input, or an error that names the place."""

import io
import json
import sys
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from encort.runtime.cli.readers import read_texts
from encort.runtime.common.errors import InputError, MissingExtraError

BOM = "\ufeff"


@pytest.fixture
def read(tmp_path):
    """`read("x.csv", content, column=None)` gives the texts of a file with that content."""

    def read(name, content, column=None):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_texts((), tmp_path / name, column))

    return read


@pytest.fixture
def set_stdin(monkeypatch):
    def replace(content, **options):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), **{"encoding": "utf-8"} | options))

    return replace


def as_parquet(**columns):
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("x.txt", "hello\nmy card\n", ["hello", "my card"]),
        ("x.txt", "hello\r\nmy card", ["hello", "my card"]),
        ("x.txt", "\nhello\n\n", ["", "hello", ""]),
        ("x.txt", "  hello \n", ["  hello "]),
        ("x.txt", 'say "hello", 안녕\n', ['say "hello", 안녕']),
        ("x.txt", BOM + "hello\n", ["hello"]),
        ("x.txt", "hello\u2028card\x0bpin\x85me\n", ["hello\u2028card\x0bpin\x85me"]),
        ("no_ending", "hello\n", ["hello"]),
        ("x.txt", "", []),
        ("x.csv", "text\nhello\nmy card\n", ["hello", "my card"]),
        ("x.csv", BOM + "text\r\nhello\r\n", ["hello"]),
        ("X.CSV", "text\nhello\n", ["hello"]),
        (
            "x.csv",
            'id,text\n1,"a ""quoted"" word"\n2,"two\nlines, a comma"\n',
            ['a "quoted" word', "two\nlines, a comma"],
        ),
        ("x.csv", 'text\n""\nhello\n', ["", "hello"]),
        ("x.csv", "text,text\n", []),
        ("x.csv", "", []),
        ("x.tsv", 'id\ttext\n1\tsay "hello"\n2\t"my card\n3\ta, b\n', ['say "hello"', '"my card', "a, b"]),
        ("x.tsv", BOM + "text\nhello\n", ["hello"]),
        ("x.jsonl", '"hello"\n"my\\ncard"\n', ["hello", "my\ncard"]),
        ("x.jsonl", '{"text": "hello"}\n{"id": 1, "text": "안녕"}\n', ["hello", "안녕"]),
        ("x.jsonl", '"hello"\n{"text": "my card"}', ["hello", "my card"]),
        ("x.jsonl", BOM + '"hello"\n', ["hello"]),
        ("x.jsonl", '"hello\u2028card"\n', ["hello\u2028card"]),
        ("x.jsonl", "", []),
        ("x.parquet", as_parquet(id=[1, 2], text=["hello", "two\nlines"]), ["hello", "two\nlines"]),
        ("x.parquet", as_parquet(text=pyarrow.array([], pyarrow.string())), []),
    ],
)
def test_every_format_gives_its_texts(read, name, content, texts):
    assert read(name, content) == texts


PAIRS = [("my card", "lost"), ("hello", "")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "text,text_pair\nmy card,lost\nhello,\n"),
        ("x.tsv", "text_pair\ttext\nlost\tmy card\n\thello\n"),
        ("x.jsonl", '{"text": "my card", "text_pair": "lost"}\n{"text": "hello", "text_pair": ""}\n'),
        ("x.parquet", as_parquet(text=["my card", "hello"], text_pair=["lost", ""])),
    ],
)
def test_a_text_pair_column_makes_pairs(read, name, content):
    assert read(name, content) == PAIRS
    assert read(name, content, column="text") == ["my card", "hello"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "id,question,context\n1,my card,lost\n2,hello,\n"),
        ("x.tsv", "context\tquestion\nlost\tmy card\n\thello\n"),
        ("x.jsonl", '{"question": "my card", "context": "lost"}\n{"question": "hello", "context": ""}\n'),
        ("x.parquet", as_parquet(question=["my card", "hello"], context=["lost", ""])),
    ],
)
def test_questions_and_their_contexts_make_pairs(read, name, content):
    assert read(name, content) == PAIRS
    assert read(name, content, column="question") == ["my card", "hello"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", "id,message\n1,hello\n"),
        ("x.tsv", "id\tmessage\n1\thello\n"),
        ("x.jsonl", '{"id": 1, "message": "hello"}\n'),
        ("x.parquet", as_parquet(id=[1], message=["hello"])),
    ],
)
def test_a_column_is_chosen_by_name_and_a_missing_one_lists_the_others(read, name, content):
    assert read(name, content, column="message") == ["hello"]
    with pytest.raises(InputError, match=rf"{name}, row 1 has no column 'text'; it has: id, message; .*--column"):
        read(name, content)
    with pytest.raises(InputError, match="has no column 'title'"):
        read(name, content, column="title")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "id,text\n1,hello\n2\n", "row 2: column 'text' holds None, expected a text"),
        ("x.jsonl", '"hello"\n{"text": null}\n', "row 2: column 'text' holds None"),
        ("x.jsonl", "3\n", "row 1: column 'text' holds 3"),
        ("x.jsonl", '{"text": "a", "text_pair": 3}\n', "row 1: column 'text_pair' holds 3"),
        ("x.jsonl", '"hello"\nhello\n', "line 2 is not JSON"),
        ("x.jsonl", '{"text": "hello"\n', "line 1 is not JSON"),
        ("x.jsonl", "[" * 100_000, "line 1 is not JSON"),
        ("x.parquet", as_parquet(text=[None, "hello"]), "row 1: column 'text' holds None"),
        ("x.parquet", as_parquet(text=[1.5]), "row 1: column 'text' holds 1.5"),
        ("x.parquet", b"not Parquet", "x.parquet"),
        ("x.parquet", b"", "x.parquet"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_no_text_is_named_with_its_place(read, name, content, message):
    with pytest.raises(InputError, match=message):
        read(name, content)


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.jsonl"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_that_is_not_utf_8_says_so(read, name, encoding):
    with pytest.raises(InputError, match=f"{name} is not UTF-8"):
        read(name, 'text\n"café"\n'.encode(encoding))


@pytest.mark.parametrize(("name", "around"), [("x.txt", "{}\n"), ("x.csv", 'text\n"{}"\n'), ("x.tsv", "text\n{}\n")])
def test_a_text_may_be_very_long(read, name, around):
    long = "card " * 40_000 + "end"
    assert read(name, around.format(long)) == [long]


def test_a_file_of_many_rows_is_read_whole(read):
    texts = [f"text {number}" for number in range(3000)]
    assert read("x.parquet", as_parquet(text=texts)) == texts
    assert read("x.jsonl", "".join(json.dumps(text) + "\n" for text in texts)) == texts


def test_arguments_are_texts(tmp_path):
    assert list(read_texts(("hello", "", "x.csv"), None, None)) == ["hello", "", "x.csv"]
    with pytest.raises(InputError, match="as arguments or with --input, not both"):
        read_texts(("hello",), tmp_path / "x.csv", None)


@pytest.mark.parametrize("dash", [False, True])
def test_a_column_is_for_tables(read, set_stdin, dash):
    set_stdin(b"hello\n")
    message = r"--column is for tables \(.csv, .*leave it out"
    with pytest.raises(InputError, match=message):
        read_texts((), Path("-") if dash else None, "text")
    with pytest.raises(InputError, match=message):
        read_texts(("hello",), None, "text")
    with pytest.raises(InputError, match=message):
        read("x.txt", "hello\n", column="text")


@pytest.mark.parametrize("name", ["nowhere.csv", "folder.csv"])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=f"no file .*{name}"):
        list(read_texts((), tmp_path / name, None))


@pytest.mark.parametrize("dash", [False, True])
def test_standard_input_is_one_text_a_line(set_stdin, dash):
    set_stdin("hello\r\n\n안녕".encode())
    file = Path("-") if dash else None
    assert list(read_texts((), file, None)) == ["hello", "", "안녕"]


def test_standard_input_that_is_not_utf_8_says_so(set_stdin):
    set_stdin(b"hello\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        list(read_texts((), None, None))


def test_a_terminal_is_not_waited_for(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(InputError, match="no texts: give them as arguments, with --input FILE, or on standard input"):
        read_texts((), None, None)


def test_parquet_without_pyarrow_gives_the_command_to_install_it(read, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "encort\[parquet\]"'):
        read("x.parquet", b"")
