"""Where the command line's texts come from: arguments, a file, or standard input, read in chunks."""

import csv
import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from encort.runtime.errors import InputError, MissingExtraError
from encort.runtime.tokenizer import Text

CHUNK = 512
"""Texts held in memory at a time: enough to fill micro-batches, few enough that results keep coming."""


def read_texts(arguments: tuple[str, ...], file: Path | None, column: str | None) -> Iterator[Text]:
    """Texts from the arguments, else from `file`, else lines of standard input.

    Args:
        file: By its ending: .csv, .tsv, .jsonl, .parquet; anything else is one text a line; `-` is stdin.
        column: Column of a table; None takes `text`, with `text_pair` beside it where there is one.

    Raises:
        InputError: Both arguments and a file, nothing at all, or a table without the column.
    """
    if arguments and file is not None:
        raise InputError("give texts as arguments or with --input, not both")
    if arguments:
        return iter(arguments)
    if file is None and sys.stdin.isatty():
        raise InputError("no texts: give them as arguments, with --input FILE, or on standard input")
    if file is None or str(file) == "-":
        return _stdin_lines()
    return _file_texts(file, column)


def chunks(texts: Iterable[Text]) -> Iterator[list[Text]]:
    """Cut a stream of texts into lists of at most `CHUNK`."""
    iterator = iter(texts)
    while chunk := list(itertools.islice(iterator, CHUNK)):
        yield chunk


def _file_texts(file: Path, column: str | None) -> Iterator[Text]:
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    readers = {".csv": _csv_rows, ".tsv": _tsv_rows, ".jsonl": _jsonl_rows, ".parquet": _parquet_rows}
    read = readers.get(file.suffix.lower())
    try:
        if read is None:
            with file.open(encoding="utf-8-sig") as lines:
                yield from _lines(lines)
        else:
            for number, row in enumerate(read(file), start=1):
                yield _text(row, column, f"{file}, row {number}")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); convert it first") from error
    except csv.Error as error:
        raise InputError(f"{file} is not a table: {error}") from error


def _stdin_lines() -> Iterator[str]:
    try:
        yield from _lines(sys.stdin)
    except UnicodeDecodeError as error:
        raise InputError(f"standard input is not UTF-8 ({error}); convert it first") from error


def _lines(lines: TextIO) -> Iterator[str]:
    return (line.rstrip("\r\n") for line in lines)


def _csv_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines)


def _tsv_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        yield from csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)


def _jsonl_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{file}, line {number} is not JSON: {error}") from error
            yield row if isinstance(row, dict) else {"text": row}


def _parquet_rows(file: Path) -> Iterator[Mapping[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", extra="parquet") from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=CHUNK):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's errors are these
        raise InputError(f"{file} is not Parquet: {error}") from error


def _text(row: Mapping[str, Any], column: str | None, place: str) -> Text:
    text = _cell(row, column or "text", place)
    if column is None and "text_pair" in row:
        return text, _cell(row, "text_pair", place)
    return text


def _cell(row: Mapping[str, Any], column: str, place: str) -> str:
    if column not in row:
        have = ", ".join(str(name) for name in row)
        raise InputError(f"{place} has no column {column!r}; it has: {have}; name one with --column")
    value = row[column]
    if not isinstance(value, str):
        raise InputError(f"{place}: column {column!r} holds {value!r}, expected a text")
    return value
