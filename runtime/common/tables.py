"""Rows of a table in a file, one at a time, whatever its format."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from encort.runtime.common.corpora import read_conll, read_squad
from encort.runtime.common.errors import InputError, MissingExtraError

Row = Mapping[str, Any]
_BATCH = 512


def is_table(file: Path) -> bool:
    return file.suffix.lower() in READERS


def read_rows(file: Path, *, header: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows as column names to values: strings from CSV and TSV, JSON's values from JSONL, Python's from Parquet.

    A .conll file gives sentences, a .json file SQuAD's questions; see `corpora`.
    CSV quotes as RFC 4180 has it; TSV does not quote. Columns without a name are left out.

    Args:
        header: Names of the columns, for a .csv or .tsv file that does not begin with them.

    Raises:
        InputError: There is no such file, or its content is not what its ending says; the row is named.
        MissingExtraError: Parquet without pyarrow.
    """
    if not file.is_file():
        raise InputError(f"there is no file {file}")
    if not is_table(file):
        raise InputError(f"{file} has an unknown ending; use one of {', '.join(READERS)}")
    try:
        if header is None:
            yield from READERS[file.suffix.lower()](file)
        elif file.suffix.lower() in _SEPARATED:
            yield from _SEPARATED[file.suffix.lower()](file, header)
        else:
            raise InputError(f"{file}: only {' and '.join(_SEPARATED)} files lack the names of their columns")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); convert it first") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error}") from error


def _csv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row]:
    return _separated(file, header, delimiter=",", strict=True)


def _tsv(file: Path, header: Sequence[str] | None = None) -> Iterator[Row]:
    return _separated(file, header, delimiter="\t", quoting=csv.QUOTE_NONE)


def _separated(file: Path, header: Sequence[str] | None, **dialect: Any) -> Iterator[Row]:
    csv.field_size_limit(sys.maxsize)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, header, **dialect)
        try:
            for number, row in enumerate(reader, start=1):
                if None in row:
                    raise InputError(f"{file}, row {number} has more cells than the header names columns")
                yield {name: cell for name, cell in row.items() if name}
        except csv.Error as error:
            raise InputError(f"{file} is not a table: {error}") from error


def _jsonl(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{file}, line {number} is not JSON: {error}") from error
            yield row if isinstance(row, dict) else {"text": row}


def _parquet(file: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", extra="parquet") from None
    try:
        for batch in parquet.ParquetFile(file).iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()
    except (ArrowException, ValueError) as error:
        raise InputError(f"{file} is not Parquet: {error}") from error


_SEPARATED: Mapping[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {".csv": _csv, ".tsv": _tsv}

READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".conll": read_conll,
    ".json": read_squad,
}
"""By the file's ending."""
