"""Texts for the command line: from arguments, a file, or standard input."""

import sys
from collections.abc import Iterator
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import Lines, Row, open_lines, without_end
from encort.runtime.common.tables.rows import READERS, is_table, read_rows
from encort.runtime.text.token_batch import Text


def read_texts(arguments: tuple[str, ...], file: Path | None, column: str | None) -> Iterator[Text]:
    """Return texts from the arguments, else from a file, else the lines of standard input.

    Args:
        arguments: Texts of the command line.
        file: A table, by its ending .csv, .tsv, .jsonl or .parquet, or a file with one text per line; `-` is stdin.
        column: Column of a table; None: `text` with `text_pair` if it exists, or `question` with `context`.

    Raises:
        InputError: There are both arguments and a file, or no texts; or the column does not exist.
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
        return _texts(Lines(sys.stdin.buffer, "standard input"))
    return _table_texts(file, column) if is_table(file) else _file_lines(file)


def _file_lines(file: Path) -> Iterator[str]:
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    try:
        with open_lines(file) as lines:
            yield from _texts(lines)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _texts(lines: Lines) -> Iterator[str]:
    for line in lines:
        lines.check()
        yield without_end(line)


def _table_texts(file: Path, column: str | None) -> Iterator[Text]:
    for number, row in enumerate(read_rows(file), start=1):
        yield _text(row, column, f"{file}, row {number}")


def _text(row: Row, column: str | None, location: str) -> Text:
    if column is None and "text" not in row and "question" in row:
        return _cell(row, "question", location), _cell(row, "context", location)
    text = _cell(row, column or "text", location)
    if column is None and "text_pair" in row:
        return text, _cell(row, "text_pair", location)
    return text


def _cell(row: Row, column: str, location: str) -> str:
    if column not in row:
        have = ", ".join(str(name) for name in row)
        raise InputError(f"{location} has no column {column!r}; it has: {have}; name one with --column")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{location}: column {column!r} holds {value!r}, expected a text")
    return value
