"""Texts come from arguments, tables, lines and standard input, and an error names the file and the row."""

import io
import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet

from encort.runtime.cli.readers import read_inputs, read_texts
from encort.runtime.common.errors import InputError, MissingExtraError

Read = Callable[..., list[Any]]

BOM = "\ufeff"


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """`read("x.csv", content, column=None)` returns the texts of a file with this content."""

    def read(name: str, content: Any, column: str | None = None) -> list[Any]:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return list(read_texts((), tmp_path / name, column))

    return read


@pytest.fixture
def set_stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`set_stdin(content)` replaces standard input."""

    def replace(content: Any, **options: Any) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), **{"encoding": "utf-8"} | options))

    return replace


def as_parquet(**columns: Any) -> bytes:
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
        ("x.txt", "card lost\rplease help\nhello\n", ["card lost\rplease help", "hello"]),
        ("x.txt", "hello\x0c\r\n\x0c\n\x1ccard\r", ["hello\x0c", "\x0c", "\x1ccard\r"]),
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
def test_every_format_gives_its_texts(read: Read, name: str, content: Any, texts: list[str]) -> None:
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
def test_the_column_text_pair_makes_pairs(read: Read, name: str, content: Any) -> None:
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
def test_the_columns_question_and_context_make_pairs(read: Read, name: str, content: Any) -> None:
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
def test_a_column_is_chosen_by_name_and_the_error_for_a_missing_one_lists_the_others(
    read: Read, name: str, content: Any
) -> None:
    assert read(name, content, column="message") == ["hello"]
    with pytest.raises(InputError, match=rf"{name}, row 1 has no column 'text'; it has: id, message; .*--column"):
        read(name, content)
    with pytest.raises(InputError, match="has no column 'title'"):
        read(name, content, column="title")
    with pytest.raises(InputError, match=r"no column 'text=message'.*did you mean --column message\?"):
        read(name, content, column="text=message")


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
def test_the_error_for_a_wrong_cell_names_its_row(read: Read, name: str, content: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(name, content)


def test_a_table_without_a_header_is_read_with_the_names_of_its_columns(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text("1,hello\n2,bye\n")
    assert list(read_texts((), file, None, "id, text")) == ["hello", "bye"]
    with pytest.raises(InputError, match=r"row 1 has no column 'text'; it has: 1, hello; .*with --header if the first"):
        list(read_texts((), file, None))
    with pytest.raises(InputError, match=r"--header is for tables"):
        read_texts((), tmp_path / "x.txt", None, "text")


@pytest.mark.parametrize("name", ["x.txt", "x.csv", "x.tsv", "x.jsonl"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_the_error_for_another_encoding_says_so(read: Read, name: str, encoding: str) -> None:
    with pytest.raises(InputError, match=f"{name}, line [12] is not UTF-8"):
        read(name, '"text"\n"café"\n'.encode(encoding))


@pytest.mark.parametrize(("name", "around"), [("x.txt", "{}\n"), ("x.csv", 'text\n"{}"\n'), ("x.tsv", "text\n{}\n")])
def test_a_text_can_be_very_long(read: Read, name: str, around: str) -> None:
    long = "card " * 40_000 + "end"
    assert read(name, around.format(long)) == [long]


def test_a_file_with_many_rows_is_read_completely(read: Read) -> None:
    texts = [f"text {number}" for number in range(3000)]
    assert read("x.parquet", as_parquet(text=texts)) == texts
    assert read("x.jsonl", "".join(json.dumps(text) + "\n" for text in texts)) == texts


def test_arguments_are_texts(tmp_path: Path) -> None:
    assert list(read_texts(("hello", "", "x.csv"), None, None)) == ["hello", "", "x.csv"]
    with pytest.raises(InputError, match="as arguments or with --input, not both"):
        read_texts(("hello",), tmp_path / "x.csv", None)


@pytest.mark.parametrize("dash", [False, True])
def test_a_column_is_refused_without_a_table(read: Read, set_stdin: Callable[..., None], dash: bool) -> None:
    set_stdin(b"hello\n")
    message = r"--column is for tables \(.csv, .*leave it out"
    with pytest.raises(InputError, match=message):
        read_texts((), Path("-") if dash else None, "text")
    with pytest.raises(InputError, match=message):
        read_texts(("hello",), None, "text")
    with pytest.raises(InputError, match=message):
        read("x.txt", "hello\n", column="text")


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere.csv", "no file .*nowhere.csv"), ("folder.csv", "folder.csv is a folder")]
)
def test_the_error_for_a_missing_file_names_it(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=message):
        list(read_texts((), tmp_path / name, None))


@pytest.mark.parametrize("dash", [False, True])
def test_standard_input_has_one_text_per_line(set_stdin: Callable[..., None], dash: bool) -> None:
    set_stdin("hello\r\n\n안녕".encode())
    file = Path("-") if dash else None
    assert list(read_texts((), file, None)) == ["hello", "", "안녕"]
    set_stdin("\ufeffcard\rlost\u2028please\x85help\x0c\nhello\r".encode())
    assert list(read_texts((), file, None)) == ["card\rlost\u2028please\x85help\x0c", "hello\r"]


def test_the_error_for_standard_input_in_another_encoding_says_so(set_stdin: Callable[..., None]) -> None:
    set_stdin(b"hello\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        list(read_texts((), None, None))


def test_a_terminal_without_input_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with pytest.raises(InputError, match="no texts: give them as arguments, with --input FILE, or on standard input"):
        read_texts((), None, None)


def test_parquet_without_pyarrow_gives_the_command_to_install_it(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "encort\[parquet\]"'):
        read("x.parquet", b"")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_no_line_of_a_file_in_utf_16_is_taken_for_a_text(name: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(f"{BOM}text\nhello\n".encode(encoding))
    with pytest.raises(InputError, match=f"{name}, line 1 is not UTF-8, but UTF-16; convert it first"):
        list(read_inputs((), file, None))


@pytest.mark.parametrize(
    ("name", "content"), [("a.txt", "a\n"), ("a.csv", "text\na\n"), ("a.tsv", "text\na\n"), ("a.jsonl", '"a"\n')]
)
def test_the_first_text_of_a_pipe_does_not_wait_for_the_second(name: str, content: str, tmp_path: Path) -> None:
    pipe, got_first = tmp_path / name, threading.Event()
    os.mkfifo(pipe)

    def write() -> bool:
        with pipe.open("w") as file:
            file.write(content)
            file.flush()
            return got_first.wait(3)

    with ThreadPoolExecutor(1) as pool:
        in_time = pool.submit(write)
        texts = read_texts((), pipe, None)
        assert next(texts) == "a"
        got_first.set()
        assert in_time.result()
        assert list(texts) == []
