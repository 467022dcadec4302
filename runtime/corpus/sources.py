"""The files of a corpus, read as chunks of rows, from any row on."""

import glob
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from pyarrow import dataset

from encort.runtime.common.errors import InputError
from encort.runtime.common.tables.lines import check_readable
from encort.runtime.common.tables.rows import READERS, is_table
from encort.runtime.corpus.row_files import RowFiles

_PARQUET = ".parquet"
_HIDDEN = (".", "_")
"""First characters of the names of files that engines leave out, such as `_SUCCESS`."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows of a corpus.

    Attributes:
        table: The rows.
        starts: Number of the first row of each part of the table that comes from one file, with the file, relative to
            the root of the corpus, and the number of that row in it.
        errors: Errors of rows that cannot be read, by their number in the table.
    """

    table: pa.Table
    starts: Sequence[tuple[int, Path, int]]
    errors: Mapping[int, InputError] = field(default_factory=dict)

    def locate(self, row: int) -> str:
        """Return file and number of a row, for messages."""
        first, file, row_in_file = [start for start in self.starts if start[0] <= row][-1]
        return f"{file}, row {row_in_file + row - first + 1}"


class _Files(Protocol):
    """Files of one kind."""

    @property
    def schema(self) -> pa.Schema:
        """Schema of all files."""

    @property
    def rows(self) -> Sequence[int]:
        """Number of rows of each file."""

    def read(self, number: int, *, skip: int, size: int) -> Iterator[tuple[pa.Table, dict[int, InputError]]]:
        """Yield tables of a file from a row on."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The rows of files, in the order of their paths.

    Attributes:
        root: The folder, or the one that the paths of a glob have in common; the corpus may move with it.
        files: The files.
        content: Reads them.
    """

    root: Path
    files: Sequence[Path]
    content: _Files

    @classmethod
    def open(cls, source: Path, *, header: Sequence[str] | None = None, column: str | None = None) -> "Corpus":
        """Find the files of a corpus, and their columns.

        Args:
            source: A file, a folder with files of one kind and folders of them, or a glob. Folders named as
                `language=ko` give the rows of Parquet files a column.
            header: Names of the columns of .csv and .tsv files without them.
            column: See `text_columns`.

        Raises:
            InputError: There are no such files, they are of several kinds, cannot be read, have no rows, or have
                columns with one name and different types.
        """
        root, files = _find(source)
        kinds = sorted({file.suffix.lower() for file in files})
        if len(kinds) > 1:
            raise InputError(f"{source} has files of several kinds ({', '.join(kinds)}); name those of one as a glob")
        if not is_table(files[0]):
            raise InputError(f"{source}: {files[0].name} is no table; use one of {', '.join(READERS)}")
        if kinds == [_PARQUET]:
            return cls(root=root, files=files, content=_ParquetFiles.open(root, files))
        return cls(root=root, files=files, content=RowFiles.open(files, header, column))

    @property
    def schema(self) -> pa.Schema:
        """Schema of the rows."""
        return self.content.schema

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(self.content.rows)

    def describe(self) -> list[list[Any]]:
        """Return name, size and rows of each file, by which a corpus is known again."""
        sizes = (file.stat().st_size for file in self.files)
        names = (file.relative_to(self.root).as_posix() for file in self.files)
        return [list(item) for item in zip(names, sizes, self.content.rows, strict=True)]

    def chunks(self, size: int, *, skip: int = 0) -> Iterator[Chunk]:
        """Yield the rows as chunks of one size, but for the last one.

        Args:
            size: Rows per chunk.
            skip: Rows to leave out at the beginning.

        Raises:
            InputError: A file is damaged.
        """
        if self.rows == 0:  # the output has the columns nevertheless
            yield Chunk(table=self.schema.empty_table(), starts=[])
        pieces = _Pieces(size)
        for number, rows in enumerate(self.content.rows):
            if skip >= rows:
                skip -= rows
                continue
            start, name = skip, self.files[number].relative_to(self.root)
            for table, errors in self._read(number, skip=skip, size=size):
                yield from pieces.add(table, name, start, errors)
                start += len(table)
            skip = 0
        yield from pieces.rest()

    def _read(self, number: int, *, skip: int, size: int) -> Iterator[tuple[pa.Table, dict[int, InputError]]]:
        try:
            yield from self.content.read(number, skip=skip, size=size)
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"{self.files[number]} cannot be read: {error}; is it damaged, or did it change?"
            ) from error


class _Pieces:
    """Cuts tables of many files into chunks of one size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._clear()

    def _clear(self) -> None:
        self._tables: list[pa.Table] = []
        self._starts: list[tuple[int, Path, int]] = []
        self._errors: dict[int, InputError] = {}
        self._rows = 0

    def add(self, table: pa.Table, file: Path, row: int, errors: Mapping[int, InputError]) -> Iterator[Chunk]:
        """Add rows of a file, from one of its rows on, and yield the chunks that are full."""
        start = 0
        while start < len(table):
            piece = table.slice(start, self._size - self._rows)
            self._tables.append(piece)
            self._starts.append((self._rows, file, row + start))
            stop = start + len(piece)
            self._errors |= {self._rows + n - start: error for n, error in errors.items() if start <= n < stop}
            self._rows += len(piece)
            start = stop
            if self._rows == self._size:
                yield from self.rest()

    def rest(self) -> Iterator[Chunk]:
        """Yield the rows that fill no chunk, if there are any."""
        if self._rows:
            table = pa.concat_tables(self._tables)
            yield Chunk(table=table, starts=self._starts, errors=self._errors)
        self._clear()


@dataclass(frozen=True, kw_only=True)
class _ParquetFiles:
    """Parquet files, of which only footers are read before the work."""

    fragments: Sequence[Any]
    schema: pa.Schema
    rows: Sequence[int]

    @classmethod
    def open(cls, root: Path, files: Sequence[Path]) -> "_ParquetFiles":
        with _translated(root):
            found = dataset.dataset([*map(str, files)], partitioning="hive", partition_base_dir=str(root))
        by_path = {Path(fragment.path): fragment for fragment in found.get_fragments()}
        fragments = [by_path[file] for file in files]
        schema = found.schema.remove_metadata()
        for file, fragment in zip(files, fragments, strict=True):
            with _translated(file):
                fragment.ensure_complete_metadata()
            schema = _unify(schema, file, fragment)
        return cls(fragments=fragments, schema=schema, rows=[fragment.count_rows() for fragment in fragments])

    def read(self, number: int, *, skip: int, size: int) -> Iterator[tuple[pa.Table, dict[int, InputError]]]:
        for group in self.fragments[number].split_by_row_group():
            rows = group.count_rows()
            if skip >= rows:
                skip -= rows
                continue
            # Without these options pyarrow reads whole row groups, several of them ahead.
            options = dataset.ParquetFragmentScanOptions(use_buffered_stream=True, pre_buffer=False)
            batches = group.to_batches(
                schema=self.schema,
                batch_size=size,
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=False,
                fragment_scan_options=options,
            )
            for batch in batches:
                kept = batch.slice(min(skip, len(batch)))
                skip -= len(batch) - len(kept)
                yield pa.Table.from_batches([kept], self.schema), {}


def _unify(schema: pa.Schema, file: Path, fragment: Any) -> pa.Schema:
    """Return a schema that holds the rows of a file too."""
    try:
        return pa.unify_schemas([schema, fragment.physical_schema.remove_metadata()], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(f"{file} does not fit the files before it: {error}; convert one of them") from error


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read as Parquet: {error}") from error


def is_pattern(source: Path) -> bool:
    """Return whether a path is a glob and not the name of a file."""
    return glob.has_magic(str(source)) and not source.exists()


def _find(source: Path) -> tuple[Path, list[Path]]:
    """Return the root and the files of a corpus, sorted."""
    if is_pattern(source):
        fixed = itertools.takewhile(lambda part: not glob.has_magic(part), source.parts[:-1])
        root = Path(*fixed).absolute()
        found = [Path(name).absolute() for name in glob.iglob(str(source), recursive=True)]  # noqa: PTH207 - absolute ones
    elif source.is_dir():
        root = source.absolute()
        found = [
            path for path in root.rglob("*") if not any(p.startswith(_HIDDEN) for p in path.relative_to(root).parts)
        ]
    else:
        check_readable(source)
        root, found = source.absolute().parent, [source.absolute()]
    files = sorted(path for path in found if path.is_file())
    if not files:
        raise InputError(f"{source} has no files; name a file, a folder with files, or a glob such as 'data/*.parquet'")
    return root, files
