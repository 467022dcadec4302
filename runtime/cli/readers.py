"""Where the command line's texts come from: arguments, a file, or standard input."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables import READERS, Row, is_table, read_rows
from encort.runtime.text.token_batch import Text


def read_texts(arguments: tuple[str, ...], file: Path | None, column: str | None) -> Iterator[Text]:
    """Texts from the arguments, else from `file`, else lines of standard input.

    Args:
        arguments: Texts of the command line.
        file: By its ending: .csv, .tsv, .jsonl, .parquet; anything else is one text a line; `-` is stdin.
        column: Column of a table; None takes `text`, with `text_pair` beside it where there is one,
            or `question` with `context`.

    Raises:
        InputError: Both arguments and a file, nothing at all, a column of what is no table, or a table without it.
    """
    if arguments and file is not None:
        raise InputError("give texts as arguments or with --input, not both")
    if column is not None and (file is None or not is_table(file)):
        raise InputError(f"--column is for tables ({', '.join(READERS)}); leave it out for other texts")
    if arguments:
        return iter(arguments)
    if file is None and sys.stdin.isatty():
        raise InputError("no texts: give them as arguments, with --input FILE, or on standard input")
    if file is None or str(file) == "-":
        return _lines(sys.stdin, "standard input")
    return _table_texts(file, column) if is_table(file) else _file_lines(file)


def _file_lines(file: Path) -> Iterator[str]:
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        with file.open(encoding="utf-8-sig") as lines:
            yield from _lines(lines, str(file))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _lines(lines: TextIO, name: str) -> Iterator[str]:
    try:
        yield from (line.rstrip("\r\n") for line in lines)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 ({error}); convert it first") from error


def _table_texts(file: Path, column: str | None) -> Iterator[Text]:
    for number, row in enumerate(read_rows(file), start=1):
        yield _text(row, column, f"{file}, row {number}")


def _text(row: Row, column: str | None, place: str) -> Text:
    if column is None and "text" not in row and "question" in row:
        return _cell(row, "question", place), _cell(row, "context", place)
    text = _cell(row, column or "text", place)
    if column is None and "text_pair" in row:
        return text, _cell(row, "text_pair", place)
    return text


def _cell(row: Row, column: str, place: str) -> str:
    if column not in row:
        have = ", ".join(str(name) for name in row)
        raise InputError(f"{place} has no column {column!r}; it has: {have}; name one with --column")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{place}: column {column!r} holds {value!r}, expected a text")
    return value
