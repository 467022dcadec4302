"""CSV and TSV."""

import csv
import itertools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import LONE_RETURN, Lines, Row, check_names, open_lines, without_end

_DELIMITERS = (",", ";", "\t")
_NAMED_DELIMITER = re.compile(r'"?sep=(?P<delimiter>[^"\r\n])"?', re.IGNORECASE)
_ESCAPE = "\x1b"
"""The csv module ends a row at a lone carriage return unless it is escaped; this escapes it, and itself."""


def scan_csv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row | InputError]:
    """Yield the rows of a CSV file, which quotes as RFC 4180 says; see `scan_rows`.

    Cells are separated by commas, semicolons or tabs: by what splits the header into the most names, or the first line
    into as many cells as `header` has names. A first line such as `sep=;`, which Excel reads, names another delimiter.
    """
    return _scan(file, header, lambda lines: _split_csv(lines, header))


def scan_tsv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row | InputError]:
    """Yield the rows of a TSV file, which does not quote; see `scan_rows`."""
    return _scan(file, header, _split_tsv)


def _scan(
    file: Path, header: Sequence[str] | None, split: Callable[[Lines], Iterator[list[str]]]
) -> Iterator[Row | InputError]:
    with open_lines(file) as lines:
        rows = filter(None, split(lines))  # without empty lines
        try:
            names = list(next(rows, []) if header is None else header)
        except csv.Error as error:
            raise InputError(f"{file} is not CSV: {error}") from error
        lines.check()
        lines.end_record()
        check_names(names, file)
        for number in itertools.count(1):
            try:
                cells = next(rows, None)
            except csv.Error as error:
                yield lines.error() or InputError(f"{file}, row {number} is not CSV: {error}")
                continue
            if cells is None:
                return
            yield lines.error() or _name_cells(names, cells, f"{file}, row {number}")


def _name_cells(names: Sequence[str], cells: Sequence[str], location: str) -> Row | InputError:
    """Return the cells by the names of their columns; None for missing cells at the end of a row."""
    if len(cells) > len(names):
        return InputError(f"{location} has more cells than the header names columns")
    return {name: cell for name, cell in itertools.zip_longest(names, cells) if name}


def _split_tsv(lines: Lines) -> Iterator[list[str]]:
    contents = map(without_end, lines)
    return (content.split("\t") if content else [] for content in contents)


def _split_csv(lines: Iterator[str], header: Sequence[str] | None) -> Iterator[list[str]]:
    csv.field_size_limit(sys.maxsize)
    first = next(lines, "")
    if named := _NAMED_DELIMITER.fullmatch(without_end(first)):
        delimiter = named["delimiter"]
    else:
        delimiter = _find_delimiter(first, header)
        lines = itertools.chain([first], lines)
    escaped = map(_escape_returns, lines)
    return csv.reader(escaped, delimiter=delimiter, strict=True, escapechar=_ESCAPE)


def _find_delimiter(line: str, header: Sequence[str] | None) -> str:
    """Return the delimiter that fits the first line; a comma if several fit it equally well."""
    counts = {delimiter: _count_cells(line, delimiter) for delimiter in _DELIMITERS}
    if header is None:
        return max(counts, key=lambda delimiter: counts[delimiter])
    return next((delimiter for delimiter, count in counts.items() if count == len(header)), _DELIMITERS[0])


def _count_cells(line: str, delimiter: str) -> int:
    return len(next(csv.reader([_escape_returns(line)], delimiter=delimiter, escapechar=_ESCAPE), []))


def _escape_returns(line: str) -> str:
    escaped = LONE_RETURN.sub(f"{_ESCAPE}\r", line.replace(_ESCAPE, 2 * _ESCAPE))
    return escaped if line.endswith("\n") else f"{escaped}\n"
