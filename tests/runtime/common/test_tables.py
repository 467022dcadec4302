"""Column names, joined tokens and the two formats of text that are not tables; `test_readers` reads every format."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables import is_table, join_tokens, read_column_names, read_rows

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
    ("tokens", "characters", "text", "starts"),
    [
        (["New", "York", "!"], False, "New York !", [0, 4, 9]),
        ([*"서울 1"], True, "서울 1", [0, 1, 2, 3]),
        (["one"], False, "one", [0]),
        ([], False, "", []),
    ],
)
def test_joined_tokens_are_at_their_offsets(tokens: list[str], characters: bool, text: str, starts: list[int]) -> None:
    assert join_tokens(tokens, characters=characters) == (text, starts)
    assert all(text.startswith(token, start) for token, start in zip(tokens, starts, strict=True))


def test_conll_takes_the_first_and_the_last_column(write: Write) -> None:
    content = "# a comment\nAnn NNP B-who\nLee\tNNP\tI-who\n\n\n# O\n서 O\n울 O\n"
    assert list(read_rows(write("a.conll", content))) == [
        {"text": "Ann Lee", "tokens": ["Ann", "Lee"], "tags": ["B-who", "I-who"]},
        {"text": "서울", "tokens": ["서", "울"], "tags": ["O", "O"]},
    ]


def test_a_number_sign_inside_of_a_sentence_is_a_token(write: Write) -> None:
    (row,) = read_rows(write("a.conll", "my O\n# O\n"))
    assert row["tokens"] == ["my", "#"]


def test_a_conll_line_without_a_tag_is_refused_by_number(write: Write) -> None:
    with pytest.raises(InputError, match=r"a\.conll, line 2: 'Lee' is not a token and a tag"):
        list(read_rows(write("a.conll", "Ann O\nLee\n")))


def test_squad_gives_one_row_per_question(write: Write) -> None:
    questions: list[dict[str, Any]] = [
        {"id": 7, "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}]},
        {"question": "Why?"},
    ]
    content = json.dumps({"data": [{"paragraphs": [{"context": "Ann came.", "qas": questions}]}]})
    assert list(read_rows(write("a.json", content))) == [
        {"id": "7", "question": "Who?", "context": "Ann came.", "answers": {"text": ["Ann"], "answer_start": [0]}},
        {"id": "", "question": "Why?", "context": "Ann came.", "answers": {"text": [], "answer_start": []}},
    ]


@pytest.mark.parametrize(
    ("name", "is_readable"), [("a.csv", True), ("A.JSONL", True), ("a.txt", False), ("csv", False)]
)
def test_the_ending_says_whether_a_file_is_a_table(name: str, is_readable: bool) -> None:
    assert is_table(Path(name)) is is_readable
