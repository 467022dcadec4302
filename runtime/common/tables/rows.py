"""Read the rows of a file one at a time, by its ending."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.conll import read_conll
from encort.runtime.common.tables.json_rows import read_json, scan_json_lines
from encort.runtime.common.tables.lines import Row, check_readable
from encort.runtime.common.tables.parquet import read_parquet
from encort.runtime.common.tables.separated import scan_csv, scan_tsv

SEPARATED: Mapping[str, Callable[[Path, Sequence[str] | None], Iterator[Row | InputError]]] = {
    ".csv": scan_csv,
    ".tsv": scan_tsv,
}
"""Readers of the files that may lack the names of their columns, by their ending."""

READERS: Mapping[str, Callable[[Path], Iterator[Row | InputError]]] = {
    ".csv": scan_csv,
    ".tsv": scan_tsv,
    ".jsonl": scan_json_lines,
    ".parquet": read_parquet,
    ".conll": read_conll,
    ".json": read_json,
}
"""Reader of a file by its ending."""

_NAMES_BY_ROW = (".jsonl", ".json")


def is_table(file: Path) -> bool:
    """Return whether a file with this ending can be read."""
    return file.suffix.lower() in READERS


def scan_rows(file: Path, *, header: Sequence[str] | None = None) -> Iterator[Row | InputError]:
    """Yield each row, or the error that says why it cannot be read; the rows behind it are still read.

    Values are strings from CSV and TSV, JSON's values from JSON, Python's values from Parquet. A .conll file gives one
    row per sentence, see `read_conll`; SQuAD's JSON one row per question, see `squad_rows`. CSV quotes as RFC 4180
    says; TSV does not quote. Columns without a name are left out.

    Args:
        file: File with one of the endings of `READERS`.
        header: Names of the columns, for a .csv or .tsv file that does not begin with them.

    Raises:
        InputError: There is no such file, it is a folder, or its content is not what its ending says.
        MissingExtraError: The file is Parquet, and pyarrow is not installed.
    """
    check_readable(file)
    if not is_table(file):
        raise InputError(f"{file} has an unknown ending; use one of {', '.join(READERS)}")
    ending = file.suffix.lower()
    if header is not None and ending not in SEPARATED:
        raise InputError(f"{file}: only {' and '.join(SEPARATED)} files lack the names of their columns")
    try:
        yield from READERS[ending](file) if header is None else SEPARATED[ending](file, header)
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def read_rows(file: Path, *, header: Sequence[str] | None = None) -> Iterator[Row]:
    """Yield the rows; see `scan_rows`.

    Raises:
        InputError: See `scan_rows`; or the file is a pipe or a device, which cannot be read a second time; or a row
            cannot be read, which the message names.
        MissingExtraError: See `scan_rows`.
    """
    check_readable(file)
    if not file.is_file():
        raise InputError(f"{file} is a pipe or a device, and it is read more than once; save it as a file first")
    for row in scan_rows(file, header=header):
        if isinstance(row, InputError):
            raise row
        yield row


def read_column_names(file: Path, *, header: Sequence[str] | None = None) -> list[str]:
    """Read the names of the columns; none where the file has no rows.

    Each row of JSON may have names of its own, so all rows of such a file are read.

    Raises:
        InputError: See `read_rows`.
        MissingExtraError: See `read_rows`.
    """
    rows = read_rows(file, header=header)
    if file.suffix.lower() in _NAMES_BY_ROW:
        return list(dict.fromkeys(name for row in rows for name in row))
    return list(next(rows, {}))
