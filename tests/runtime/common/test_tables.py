"""Column names, joined tokens and the two formats of text that are not tables; `test_readers` reads every format."""

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables import json_rows, lines
from encort.runtime.common.tables.lines import list_names
from encort.runtime.common.tables.rows import is_table, read_column_names, read_rows, scan_rows
from encort.runtime.common.token_lists import TokenKind, join_tokens

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(name, content)` makes a file."""

    def make(name: str, content: str) -> Path:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return tmp_path / name

    return make


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("a.csv", "text,label\nhello,a\n", ["text", "label"]),
        ("a.csv", "text,label\n", []),
        ("a.tsv", "", []),
        ("a.csv", ",text\n0,hello\n", ["text"]),
        ("a.jsonl", '{"text": "a"}\n{"label": "b", "text": "c"}\n', ["text", "label"]),
        ("a.jsonl", '"a"\n', ["text"]),
        ("a.conll", "my O\n", ["text", "tokens", "tags"]),
    ],
)
def test_column_names_are_those_of_the_rows(write: Write, name: str, content: str, columns: list[str]) -> None:
    assert read_column_names(write(name, content)) == columns


def test_a_header_names_the_columns_of_a_file_without_names(write: Write) -> None:
    assert read_column_names(write("a.csv", "hello,a\n"), header=["said", "meant"]) == ["said", "meant"]


@pytest.mark.parametrize(
    ("tokens", "kind", "text", "starts"),
    [
        (["New", "York", "!"], "words", "New York !", [0, 4, 9]),
        ([*"서울 1"], "characters", "서울 1", [0, 1, 2, 3]),
        (["one"], "words", "one", [0]),
        ([], "words", "", []),
    ],
)
def test_joined_tokens_are_at_their_offsets(tokens: list[str], kind: str, text: str, starts: list[int]) -> None:
    assert join_tokens(tokens, TokenKind(kind)) == (text, starts)
    assert all(text.startswith(token, start) for token, start in zip(tokens, starts, strict=True))


def test_conll_takes_the_first_and_the_last_column(write: Write) -> None:
    content = "# a comment\nAnn NNP B-who\nLee\tNNP\tI-who\n\n\n# O\n서 O\n울 O\n"
    assert list(read_rows(write("a.conll", content))) == [
        {"text": "Ann Lee", "tokens": ["Ann", "Lee"], "tags": ["B-who", "I-who"]},
        {"text": "서울", "tokens": ["서", "울"], "tags": ["O", "O"]},
    ]


def test_a_sentence_of_single_letters_is_not_glued(write: Write) -> None:
    (row,) = read_rows(write("a.conll", "I O\n. O\n"))
    assert row["text"] == "I ."


def test_a_number_sign_inside_of_a_sentence_is_a_token(write: Write) -> None:
    (row,) = read_rows(write("a.conll", "my O\n# O\n"))
    assert row["tokens"] == ["my", "#"]


def test_a_conll_line_without_a_tag_is_refused_by_number(write: Write) -> None:
    with pytest.raises(InputError, match=r"a\.conll, line 2: 'Lee' is not a token and a tag"):
        list(read_rows(write("a.conll", "Ann O\nLee\n")))


def test_squad_gives_one_row_per_question(write: Write) -> None:
    questions: list[dict[str, Any]] = [
        {"id": 7, "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "Ann"}]},
        {"question": "When?"},
    ]
    content = json.dumps({"data": [{"paragraphs": [{"context": "Ann came.", "qas": questions}]}]})
    assert list(read_rows(write("a.json", content))) == [
        {
            "id": identifier,
            "question": question,
            "context": "Ann came.",
            "answers": answers,
            "is_impossible": is_impossible,
        }
        for identifier, question, answers, is_impossible in [
            ("7", "Who?", {"text": ["Ann"], "answer_start": [0]}, None),
            ("", "Why?", {"text": [], "answer_start": []}, True),
            ("", "When?", None, None),
        ]
    ]


@pytest.mark.parametrize(
    ("name", "is_readable"), [("a.csv", True), ("A.JSONL", True), ("a.txt", False), ("csv", False)]
)
def test_the_ending_says_whether_a_file_is_a_table(name: str, is_readable: bool) -> None:
    assert is_table(Path(name)) is is_readable


TRAPS = "card lost\rplease\u2028help\x85me\x0cnow\x0bor\x1cnever\x1b!"
"""One text, with characters at which Python or the csv module may end a line."""

ONE_ROW = {
    "a.csv": f"text,label\n{TRAPS},a\n",
    "quoted.csv": f'text,label\r\n"{TRAPS}","a"\r\n',
    "a.tsv": f"text\tlabel\n{TRAPS}\ta\n",
    "windows.tsv": f"text\tlabel\r\n{TRAPS}\ta\r\n",
    "a.jsonl": json.dumps({"text": TRAPS, "label": "a"}, ensure_ascii=False).replace("\\u2028", "\u2028") + "\n",
    "a.json": json.dumps([{"text": TRAPS, "label": "a"}], ensure_ascii=False),
}


@pytest.mark.parametrize(("name", "content"), ONE_ROW.items(), ids=ONE_ROW)
def test_only_line_feeds_end_a_line(write: Write, name: str, content: str) -> None:
    file = write(name, "")
    file.write_bytes(content.encode())
    assert list(read_rows(file)) == [{"text": TRAPS, "label": "a"}]


def test_a_quoted_cell_keeps_its_line_ends(write: Write) -> None:
    file = write("a.csv", "")
    file.write_bytes(b'text,label\r\n"one\r\ntwo\nthree\rfour",a\r\n')
    assert list(read_rows(file)) == [{"text": "one\r\ntwo\nthree\rfour", "label": "a"}]


def test_a_conll_token_may_have_any_white_space_but_the_separator(write: Write) -> None:
    (row,) = read_rows(write("a.conll", "10\u00a0000 B-sum\na\u2028b O\nc\x0cd\x85e O\n"))
    assert row["tokens"] == ["10\u00a0000", "a\u2028b", "c\x0cd\x85e"]
    assert row["tags"] == ["B-sum", "O", "O"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.conll"])
def test_the_line_ends_of_old_macs_are_refused(write: Write, name: str) -> None:
    file = write(name, "")
    separator = "," if name == "a.csv" else "\t"
    file.write_bytes(f"text{separator}label\rhello{separator}O\r".encode())
    with pytest.raises(InputError, match=r"carriage return.*old Macs"):
        list(read_rows(file))


TWO_NAMES = {
    "a.csv": "text,label,text\nhello,a,bye\n",
    "a.tsv": "text\tlabel\ttext\nhello\ta\tbye\n",
    "empty.csv": "text,text\n",
    "a.jsonl": '{"text": "hello", "label": "a", "text": "bye"}\n',
    "a.json": '[{"text": "hello", "label": "a", "text": "bye"}]',
}


@pytest.mark.parametrize(("name", "content"), TWO_NAMES.items(), ids=TWO_NAMES)
def test_two_columns_with_one_name_are_refused_by_name(write: Write, name: str, content: str) -> None:
    with pytest.raises(InputError, match=rf"{name}.*'text'"):
        list(read_rows(write(name, content)))


def test_two_columns_with_one_name_are_refused_in_parquet_and_in_a_given_header(write: Write) -> None:
    columns = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    file = write("a.parquet", "")
    parquet.write_table(columns, file)
    with pytest.raises(InputError, match="several columns named 'text'"):
        list(read_rows(file))
    with pytest.raises(InputError, match="several columns named 'text'"):
        list(read_rows(write("a.csv", "hello,bye\n"), header=["text", "text"]))


DELIMITERS = {
    "semicolons": 'text;label\nhello, you;a\n"bye; you";b\n',
    "tabs": 'text\tlabel\nhello, you\ta\n"bye; you"\tb\n',
    "commas": 'text,label\n"hello, you",a\nbye; you,b\n',
    "named for Excel": 'sep=;\r\ntext;label\r\nhello, you;a\r\n"bye; you";b\r\n',
    "another one named for Excel": '"SEP=|"\ntext|label\nhello, you|a\nbye; you|b\n',
    "quoted names": '"text";"label"\nhello, you;a\nbye; you;b\n'.replace("bye; you", '"bye; you"'),
}


@pytest.mark.parametrize("content", DELIMITERS.values(), ids=DELIMITERS)
def test_the_header_of_a_csv_file_shows_its_separator(write: Write, content: str) -> None:
    expected = [{"text": "hello, you", "label": "a"}, {"text": "bye; you", "label": "b"}]
    assert list(read_rows(write("a.csv", content))) == expected


@pytest.mark.parametrize(
    ("content", "cells"),
    [("a;b\n", ["a", "b"]), ("a, b, c;d\n", ["a, b, c", "d"]), ("a; b,c\n", ["a; b", "c"])],
)
def test_the_length_of_a_given_header_shows_the_separator(write: Write, content: str, cells: list[str]) -> None:
    assert list(read_rows(write("a.csv", content), header=["text", "label"])) == [
        dict(zip(["text", "label"], cells, strict=True))
    ]


RECORDS = [{"text": "hello", "label": "a"}, {"text": "bye", "label": "b"}]
JSON_FORMS = {
    "list": json.dumps(RECORDS, indent=2),
    "under data": json.dumps({"version": "1", "data": RECORDS}),
    "lines": "".join(json.dumps(record) + "\n" for record in RECORDS),
    "columns": json.dumps({"text": ["hello", "bye"], "label": ["a", "b"]}),
    "pandas": json.dumps({"text": {"0": "hello", "7": "bye"}, "label": {"0": "a", "7": "b"}}),
    "byte order mark": "\ufeff" + json.dumps(RECORDS),
}


@pytest.mark.parametrize("content", JSON_FORMS.values(), ids=JSON_FORMS)
def test_json_may_have_any_usual_form(write: Write, content: str) -> None:
    assert list(read_rows(write("a.json", content))) == RECORDS


def test_json_records_may_have_different_columns(write: Write) -> None:
    assert read_column_names(write("a.json", '[{"text": "a"}, {"text": "b", "label": "c"}]')) == ["text", "label"]
    assert list(read_rows(write("a.json", '["a", {"text": "b"}]'))) == [{"text": "a"}, {"text": "b"}]


def test_a_json_object_of_one_row_is_a_row(write: Write) -> None:
    row = {"text": "hello", "labels": ["a", "b"], "spans": {"start": 0}}
    assert list(read_rows(write("a.json", json.dumps(row, indent=2)))) == [row]
    assert list(read_rows(write("a.json", '{"text": null, "tags": []}'))) == [{"text": None, "tags": []}]


@pytest.mark.parametrize(
    "content", ["3", '"text"', "{}", '{"text": ["a"], "label": []}', '{"a": {"0": 1}, "b": {"1": 1}}']
)
def test_json_of_another_form_is_refused_with_the_known_forms(write: Write, content: str) -> None:
    with pytest.raises(InputError, match="has no rows: expected a list of objects"):
        list(read_rows(write("a.json", content)))


def test_empty_json_lines_are_skipped(write: Write) -> None:
    assert list(read_rows(write("a.jsonl", '\n"a"\n\n \n"b"\n\n'))) == [{"text": "a"}, {"text": "b"}]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-16"])
@pytest.mark.parametrize("text", ["text\nhello\nhello\n", "\nhello\nhello\n", "жди\nжди, жди\n你好\n", "text"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.conll"])
def test_utf_16_is_refused_with_and_without_a_byte_order_mark(
    write: Write, name: str, text: str, encoding: str
) -> None:
    file = write(name, "")
    file.write_bytes((json.dumps(text, ensure_ascii=False) if name == "a.json" else text).encode(encoding))
    with pytest.raises(InputError, match=r"is not UTF-8.*convert it first"):
        list(read_rows(file))


def test_a_byte_0_makes_its_row_unusable(write: Write) -> None:
    good, bad, last = scan_rows(write("a.csv", "text,label\nhello,a\nhel\0lo,b\nbye,b\n"))
    assert (good, last) == ({"text": "hello", "label": "a"}, {"text": "bye", "label": "b"})
    assert "line 3 has a byte 0" in str(bad)


@pytest.mark.parametrize(
    "bad",
    [b"a\xff", b'"a" x', b'"a\xff" x', b'"a\0" x', b"a,b", b'"a\xff" x\n"a\xff" x'],
    ids=repr,
)
def test_a_row_that_cannot_be_used_leaves_its_neighbours_alone(write: Write, bad: bytes) -> None:
    file = write("a.csv", "")
    file.write_bytes(b"text\ngood\n" + bad + b"\ngood too\nlast\n")
    first, *unusable, next_row, last = scan_rows(file)
    assert (first, next_row, last) == ({"text": "good"}, {"text": "good too"}, {"text": "last"})
    assert len(unusable) == bad.count(b"\n") + 1
    assert all(isinstance(row, InputError) for row in unusable)


class Endless(io.RawIOBase):
    """A file without an end, which repeats some bytes after its beginning."""

    def __init__(self, beginning: bytes, content: bytes) -> None:
        self.next, self.content = beginning or content, content

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), len(self.next))
        buffer[:count] = self.next[:count]
        self.next = self.content
        return count


ENDLESS = {
    "a line": ("a.jsonl", b"", b"a"),
    "a text": ("a.tsv", b"", b"a "),
    "a quoted cell": ("a.csv", b"", b'"text'),
    "lines of a quoted cell": ("a.csv", b'x\n"', b"a\n"),
    "a sentence": ("a.conll", b"", b"word O\n"),
    "a JSON file": ("a.json", b"", b" "),
}


@pytest.mark.parametrize(("name", "beginning", "content"), ENDLESS.values(), ids=ENDLESS)
def test_a_record_without_an_end_is_an_error(
    write: Write, name: str, beginning: bytes, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "LONGEST_RECORD", 2**20)
    monkeypatch.setattr(json_rows, "LARGEST_FILE", 2**20)
    file = write(name, "")
    endless = Endless(beginning, content * (4096 // len(content)))
    monkeypatch.setattr(Path, "open", lambda *_: io.BufferedReader(endless))
    with pytest.raises(InputError, match="more than 1,048,576 bytes"):
        list(scan_rows(file))


def test_records_of_the_longest_size_are_read(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_RECORD", 16)
    assert list(read_rows(write("a.csv", "text\n" + "123456789012345\n" * 3))) == [{"text": "123456789012345"}] * 3
    assert len(list(read_rows(write("a.conll", "word O\nword O\n\n" * 3)))) == 3


BAD_ROWS = {
    "a.csv": (b'text,label\na,b\n"c" d,e\nf,g,h\n\xff,i\nj,k\n', ["row 2 is not CSV", "row 3 has more", "line 5"]),
    "a.tsv": (b"text\tlabel\na\tb\nf\tg\th\n\xff\ti\nj\tk\n", ["row 2 has more", "line 4 is not UTF-8"]),
    "a.jsonl": (
        b'{"text": "a", "label": "b"}\n{"text"\n"\xff"\n{"text": "j", "label": "k"}\n',
        ["line 2 is not JSON", "line 3 is not UTF-8"],
    ),
}


@pytest.mark.parametrize(("name", "content", "messages"), [(name, *case) for name, case in BAD_ROWS.items()])
def test_rows_behind_a_bad_one_are_still_read(write: Write, name: str, content: bytes, messages: list[str]) -> None:
    file = write(name, "")
    file.write_bytes(content)
    first, *bad, last = scan_rows(file)
    assert (first, last) == ({"text": "a", "label": "b"}, {"text": "j", "label": "k"})
    for error, message in zip(bad, messages, strict=True):
        assert isinstance(error, InputError)
        assert message in str(error)


def test_a_quoted_cell_of_several_lines_is_bad_as_a_whole(write: Write) -> None:
    file = write("a.csv", "")
    file.write_bytes(b'text,label\n"one\n\xff\nthree",a\nj,k\n')
    error, row = scan_rows(file)
    assert isinstance(error, InputError)
    assert row == {"text": "j", "label": "k"}


@pytest.mark.parametrize("as_list", [False, True])
def test_parquet_gives_the_names_of_classes_that_datasets_wrote(write: Write, as_list: bool) -> None:
    classes = datasets.ClassLabel(names=["O", "B-who"])
    feature, values = (datasets.List(classes), [[0, 1], [1]]) if as_list else (classes, [1, -1])
    file = write("a.parquet", "")
    features = datasets.Features({"label": feature, "number": datasets.Value("int64")})
    datasets.Dataset.from_dict({"label": values, "number": [0, 1]}, features=features).to_parquet(file)
    expected = [["O", "B-who"], ["B-who"]] if as_list else ["B-who", -1]
    assert list(read_rows(file)) == [{"label": label, "number": n} for n, label in enumerate(expected)]


def test_names_are_compared_in_linear_time(write: Write) -> None:
    """Half a minute if each name were compared with all others."""
    columns = {"text": {str(number): "a" for number in range(100_000)}}
    assert len(list(read_rows(write("a.json", json.dumps(columns))))) == 100_000
    names = ",".join(f"n{number}" for number in range(20_000))
    assert len(read_column_names(write("a.csv", f"{names}\n{names}\n"))) == 20_000


def test_a_row_of_parquet_that_python_cannot_hold_is_an_error_of_its_own(write: Write) -> None:
    file = write("a.parquet", "")
    days = pyarrow.array([0, 2**62], pyarrow.date64())
    parquet.write_table(pyarrow.table({"text": ["a", "b"], "day": days}), file)
    first, second = scan_rows(file)
    assert isinstance(first, dict)
    assert first["text"] == "a"
    assert "row 2 cannot be read: days=" in str(second)


def test_parquet_is_not_read_from_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"pipe or a device.*save it as a file first"):
        list(scan_rows(tmp_path / "a.parquet"))


def zipped(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.csv", content)
    return stream.getvalue()


def as_parquet(content: bytes) -> bytes:
    stream = io.BytesIO()
    parquet.write_table(pyarrow.table({"text": [content][: len(content)]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.conll"])
@pytest.mark.parametrize("content", [b'{"text": "a"}', b""])
@pytest.mark.parametrize(
    ("pack", "kind"),
    [
        (gzip.compress, "gzip; unpack"),
        (bz2.compress, "bzip2"),
        (lzma.compress, "xz"),
        (lambda content: pyarrow.compress(content, codec="zstd", asbytes=True), "zstd"),
        (zipped, "a zip archive"),
        (as_parquet, "Parquet; give it the ending"),
    ],
    ids=["gzip", "bzip2", "xz", "zstd", "zip", "parquet"],
)
def test_a_packed_file_is_named_by_its_kind(
    write: Write, name: str, content: bytes, pack: Callable[[bytes], bytes], kind: str
) -> None:
    file = write(name, "")
    file.write_bytes(pack(content))
    with pytest.raises(InputError, match=rf"{name} is no text, but {kind}"):
        list(scan_rows(file))


@pytest.mark.parametrize("text", ["PAR1 headlight bulb", "BZh is a name", "BZh9", "PAR1", "PK", "(zstd)"])
def test_a_text_may_begin_like_a_packed_file(write: Write, text: str) -> None:
    assert list(scan_rows(write("a.csv", f"{text}\na\n"))) == [{text: "a"}]


def test_a_file_in_another_encoding_is_not_called_bad_json(write: Write) -> None:
    file = write("a.json", "")
    file.write_bytes('[{"text": "caf\u00e9"}]'.encode("latin-1"))
    with pytest.raises(InputError, match=r"a\.json is not UTF-8 \("):
        list(scan_rows(file))


def test_very_many_and_very_long_names_are_cut_in_messages() -> None:
    assert list_names(["a", "b"]) == "a, b"
    assert len(list_names(f"{number} {'x' * 1000}" for number in range(10**5))) < 4000
