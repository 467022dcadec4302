"""Texts for the command line: from arguments, a file, or standard input."""

import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encort.runtime.cli.streams import decode_argument, open_stdin
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.common.labelled_rows.columns import parse_header
from encort.runtime.common.tables.lines import Lines, Row, check_readable, list_names, open_lines, without_end
from encort.runtime.common.tables.rows import READERS, SEPARATED, is_table, scan_rows
from encort.runtime.text.joined_words import JoinedWords
from encort.runtime.text.token_batch import Text


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input of the command line.

    Attributes:
        location: Its place, such as `messages.csv, row 3`, for messages.
        value: The text, or the error that says why there is none.
    """

    location: str
    value: Text | InputError


def read_texts(
    arguments: tuple[str, ...], file: Path | None, column: str | None, header: str | None = None
) -> Iterator[Text]:
    """Return the texts of `read_inputs`.

    Raises:
        InputError: See `read_inputs`; or an input is no text, which the message names.
    """
    return map(_get_text, read_inputs(arguments, file, column, header))


def read_inputs(
    arguments: tuple[str, ...], file: Path | None, column: str | None, header: str | None = None
) -> Iterator[Input]:
    """Return inputs from the arguments, else from a file, else from the lines of standard input.

    Args:
        arguments: Texts of the command line.
        file: A table by its ending, see `READERS`, or a file with one text per line; `-` is stdin.
        column: Column of a table, with texts or with lists of words; None: `text` with `text_pair` if it exists, or
            `tokens`, or `question` with `context`.
        header: Names of the columns, separated by commas, for a .csv or .tsv file that does not begin with them.

    Raises:
        InputError: There are both arguments and a file, or no texts; or the file cannot be read.
    """
    if arguments and file is not None:
        raise InputError("give texts as arguments or with --input, not both")
    for option, value in (("--column", column), ("--header", header)):
        if value is not None and (file is None or not is_table(file)):
            raise InputError(f"{option} is for tables ({', '.join(READERS)}); leave it out for other texts")
    if arguments:
        texts = map(decode_argument, arguments)
        return (Input(location=f"text {number}", value=text) for number, text in enumerate(texts, start=1))
    if file is None or str(file) == "-":
        return _line_inputs(Lines(open_stdin().buffer, "standard input"))
    check_readable(file)
    return _table_inputs(file, column, header) if is_table(file) else _file_inputs(file)


def _get_text(item: Input) -> Text:
    if isinstance(item.value, InputError):
        raise item.value
    return item.value


def _file_inputs(file: Path) -> Iterator[Input]:
    try:
        with open_lines(file) as lines:
            yield from _line_inputs(lines)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _line_inputs(lines: Lines) -> Iterator[Input]:
    for line in lines:
        yield Input(location=lines.location, value=lines.error() or without_end(line))


def _table_inputs(file: Path, column: str | None, header: str | None) -> Iterator[Input]:
    names = None if header is None else parse_header(header)
    for number, row in enumerate(scan_rows(file, header=names), start=1):
        location = f"{file}, row {number}"
        yield Input(location=location, value=row if isinstance(row, InputError) else _read_text(row, column, location))


def _read_text(row: Row, column: str | None, location: str) -> Text | InputError:
    try:
        return _text(row, column, location)
    except InputError as error:
        return error


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
        have = list_names(row)
        _, _, name = column.partition("=")
        hint = f"did you mean --column {name}?" if name in row else "name one with --column"
        if name not in row and location.rpartition(", row ")[0].lower().endswith(tuple(SEPARATED)):
            hint += ", or all columns with --header if the first line is no header"
        raise InputError(f"{location} has no column {column!r}; it has: {have}; {hint}")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{location}: column {column!r} holds {reprlib.repr(value)}, expected a text")
    return value
