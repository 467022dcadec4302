"""One input of a job, and how the text of a row is found."""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.common.tables.lines import Row, list_names
from encort.runtime.common.tables.rows import SEPARATED
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import Text

Record = Mapping[str, Any]
"""The result of one input: names to plain values, and an embedding to an array."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input.

    Attributes:
        location: Its place, such as `messages.csv, row 3`, for messages.
        value: The text, or the error that says why there is none.
    """

    location: str
    value: Text | InputError


def read_text(row: Row, column: str | None, location: str) -> Text | InputError:
    """Return the text of a row, or the error that says why there is none.

    Args:
        row: Values by the names of their columns.
        column: See `text_columns`.
        location: Place of the row, for messages.
    """
    try:
        return _text(row, column, location)
    except InputError as error:
        return error


def text_columns(names: Sequence[str], column: str | None, location: str) -> list[str]:
    """Return the columns that texts are read from.

    Args:
        names: Names of all columns.
        column: Column with texts or with lists of words; None: `text` with `text_pair` if it exists, or `tokens`, or
            `question` with `context`.
        location: Place of the columns, for messages.

    Raises:
        InputError: There are no such columns.
    """
    if column is not None:
        wanted = [column]
    elif "text" in names:
        wanted = ["text", *(name for name in ["text_pair"] if name in names)]
    elif "tokens" in names:
        wanted = ["tokens"]
    else:
        wanted = ["question", "context"] if "question" in names else ["text"]
    for name in wanted:
        if name not in names:
            raise InputError(_missing(names, name, location))
    return wanted


def _text(row: Row, column: str | None, location: str) -> Text:
    words = "tokens" if column is None and "text" not in row else column
    if words is not None and isinstance(row.get(words), list):
        return _joined_words(row[words], f"{location}, column {words!r}")
    if column is None and "text" not in row and "question" in row:
        return _cell(row, "question", location), _cell(row, "context", location)
    text = _cell(row, "text" if column is None else column, location)
    if column is None and "text_pair" in row:
        return text, _cell(row, "text_pair", location)
    return text


def _joined_words(words: list[Any], location: str) -> Text:
    try:
        return JoinedWords.of(words)
    except InputTypeError as error:
        raise InputError(f"{location}: {error}") from error


def _cell(row: Row, column: str, location: str) -> str:
    if column not in row:
        raise InputError(_missing(list(row), column, location))
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{location}: {not_a_text(column, value)}")
    return value


def not_a_text(column: str, value: object) -> str:
    """Return the message about a cell that must be a text."""
    return f"column {column!r} holds {reprlib.repr(value)}, expected a text"


def _missing(names: Sequence[str], column: str, location: str) -> str:
    _, _, name = column.partition("=")
    hint = f"did you mean --column {name}?" if name in names else "name one with --column"
    if name not in names and location.rpartition(", row ")[0].lower().endswith(tuple(SEPARATED)):
        hint += ", or all columns with --header if the first line is no header"
    return f"{location} has no column {column!r}; it has: {list_names(names)}; {hint}"
