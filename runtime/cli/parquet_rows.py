"""One Parquet file of records, in memory of one size."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pyarrow as pa
from pyarrow import ipc, parquet

from encort.runtime.corpus.inputs import Record

GROUP = 8192
"""Records per group of rows: what is in memory at a time."""


class ParquetRows:
    """Writes records to a nameless file first, because only the last one completes the types of the columns."""

    def __init__(self, spill: IO[bytes]) -> None:
        """Write into an empty file that is open for reading and writing."""
        self._spill, self._groups = spill, 0
        self._waiting: list[Record] = []
        self._schema = pa.schema([])

    def write(self, records: Sequence[Record]) -> None:
        """Write full groups at once, and keep the others in memory."""
        self._waiting += records
        while len(self._waiting) >= GROUP:
            self._write_group(self._waiting[:GROUP])
            del self._waiting[:GROUP]

    def finish(self, target: Path) -> None:
        """Write the Parquet file, with the columns of all records."""
        if self._waiting:
            self._write_group(self._waiting)
        self._spill.seek(0)
        empty = self._schema.empty_table()
        with parquet.ParquetWriter(target, self._schema) as writer:
            for _ in range(self._groups):
                group = ipc.open_stream(self._spill).read_all()
                writer.write_table(pa.concat_tables([empty, group], promote_options="permissive"))

    def _write_group(self, records: Sequence[Record]) -> None:
        names = dict.fromkeys(name for record in records for name in record)
        table = pa.table({name: [record.get(name) for record in records] for name in names})
        self._schema = pa.unify_schemas([self._schema, table.schema], promote_options="permissive")
        with ipc.new_stream(self._spill, table.schema) as stream:
            stream.write_table(table)
        self._groups += 1


@contextmanager
def open_parquet(file: Path) -> Iterator[ParquetRows]:
    """Open a writer of a Parquet file, which is written at the end of the block."""
    with TemporaryFile(dir=file.parent) as spill:
        rows = ParquetRows(spill)
        yield rows
        rows.finish(file)
