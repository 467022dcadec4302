"""Rows of CSV, JSON and CoNLL files, with one schema for all of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from encort.runtime.common.errors import InputError
from encort.runtime.common.output.escaping import dump_json, is_unicode
from encort.runtime.common.tables.lines import Row
from encort.runtime.common.tables.rows import scan_rows
from encort.runtime.corpus.inputs import not_a_text, text_columns

_ROWS = 8192
"""Rows whose types are found together."""


@dataclass(frozen=True, kw_only=True)
class RowFiles:
    """Files that are read row by row.

    Attributes:
        files: The files, in their order.
        header: Names of the columns of .csv and .tsv files without them.
        text_columns: Names of the columns with texts.
        schema: Schema of the rows of all files. Values of one column that have no common type become texts.
        rows: Rows of each file, those that cannot be read among them.
    """

    files: Sequence[Path]
    header: Sequence[str] | None
    text_columns: Sequence[str]
    schema: pa.Schema
    rows: Sequence[int]

    @classmethod
    def open(cls, files: Sequence[Path], header: Sequence[str] | None, column: str | None) -> "RowFiles":
        """Read all files once, to know the columns and the number of rows.

        Args:
            files: The files.
            header: Names of the columns of .csv and .tsv files without them.
            column: See `text_columns`.

        Raises:
            InputError: A file cannot be read; there are no rows, or no column of texts.
        """
        types: dict[str, pa.DataType] = {}
        counts = []
        for file in files:
            rows = scan_rows(file, header=header)
            counts.append(0)
            while chunk := list(islice(rows, _ROWS)):
                counts[-1] += len(chunk)
                _widen(types, [row for row in chunk if not isinstance(row, InputError)])
        if not any(counts):
            raise InputError(f"{files[0]} has no rows, so its columns are not known")
        schema = pa.schema([(name, pa.string() if pa.types.is_null(kind) else kind) for name, kind in types.items()])
        texts = text_columns(schema.names, column, f"{files[0].name}, row 1")
        return cls(files=files, header=header, text_columns=texts, schema=schema, rows=counts)

    def read(self, number: int, *, skip: int, size: int) -> Iterator[tuple[pa.Table, dict[int, InputError]]]:
        """Yield the rows of a file as tables, with the errors of rows that cannot be read.

        Args:
            number: Number of the file.
            skip: Rows to leave out at the beginning.
            size: Rows per table.
        """
        numbered = enumerate(scan_rows(self.files[number], header=self.header), start=1)
        rows = islice(numbered, skip, None)
        while chunk := list(islice(rows, size)):
            checked = [self._checked(row, f"{self.files[number].name}, row {place}") for place, row in chunk]
            errors = {index: error for index, (_, error) in enumerate(checked) if error is not None}
            yield self._table([row for row, _ in checked]), errors

    def _checked(self, row: Row | InputError, location: str) -> tuple[Row, InputError | None]:
        """Return the row, and the error that says why it cannot be used."""
        if isinstance(row, InputError):
            return {}, row
        if not all(is_unicode(value) for value in row.values() if isinstance(value, str)):
            return row, InputError(f"{location} has an unpaired surrogate, so it is not Unicode")
        for name in self.text_columns:
            value = row.get(name)
            # The column of texts would hold numbers and lists as texts.
            if pa.types.is_string(self.schema.field(name).type) and not isinstance(value, str):
                return row, InputError(f"{location}: {not_a_text(name, value)}")
        return row, None

    def _table(self, rows: Sequence[Row]) -> pa.Table:
        columns = [_column([row.get(field.name) for row in rows], field.type) for field in self.schema]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _widen(types: dict[str, pa.DataType], rows: Sequence[Row]) -> None:
    """Widen the types of columns, so that they can hold these rows."""
    for name in dict.fromkeys(name for row in rows for name in row):
        kind = _type_of(row.get(name) for row in rows)
        types[name] = _common(types.get(name, pa.null()), kind)


def _type_of(values: Iterable[Any]) -> pa.DataType:
    try:
        return pa.array(list(values)).type
    except (pa.ArrowException, OverflowError, UnicodeEncodeError):
        return pa.string()


def _common(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    try:
        schemas = [pa.schema([("x", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("x").type
    except pa.ArrowException:
        return pa.string()


def _column(values: list[Any], data_type: pa.DataType) -> pa.Array:
    if pa.types.is_string(data_type):
        return pa.array([_as_text(value) for value in values], pa.string())
    if pa.types.is_floating(data_type):  # pyarrow refuses whole numbers that a float would round
        return pa.array([None if value is None else float(value) for value in values], data_type)
    return pa.array(values, data_type)


def _as_text(value: Any) -> str | None:
    """Return a value of a column of texts. Arrow has no unpaired surrogates; they become question marks."""
    if value is None:
        return None
    text = value if isinstance(value, str) else dump_json(value)
    return text.encode(errors="replace").decode()
