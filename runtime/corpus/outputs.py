"""Outputs of jobs, which are written part by part: a part is complete, or is not there."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import shorten_path
from encort.runtime.common.npy import npy_header
from encort.runtime.common.temporary import temporary_beside
from encort.runtime.corpus.job_log import FinishedPart

WriteTable = Callable[[pa.Table], None]
_NO_DICTIONARY = "embedding"
"""End of the names of columns whose values hardly repeat, so that a dictionary of them costs time for nothing."""


class Output(Protocol):
    """Output of a job.

    Attributes:
        folder: Folder of the log.
    """

    folder: Path

    def part(self, finished: Sequence[FinishedPart]) -> AbstractContextManager[WriteTable]:
        """Open the part behind the finished ones. It is complete at the end of the block.

        Raises:
            InputError: It cannot be written.
        """

    def finish(self, finished: Sequence[FinishedPart]) -> None:
        """Make the output complete, after the log is closed."""


class ParquetParts:
    """A folder of files `part-00000.parquet`, each written under a temporary name."""

    def __init__(self, folder: Path) -> None:
        """Write into a folder."""
        self.folder = folder

    @contextmanager
    def part(self, finished: Sequence[FinishedPart]) -> Iterator[WriteTable]:
        """Open the next file; see `Output.part`."""
        target = self.folder / f"part-{len(finished):05}.parquet"
        with ExitStack() as held:
            with _writing(self.folder):
                temporary = held.enter_context(temporary_beside(target, Path.touch))
            part = _ParquetPart(temporary, self.folder)
            held.callback(part.close)
            yield part.write
            with _writing(self.folder):
                part.close()
                _sync(temporary)
                temporary.replace(target)

    def finish(self, finished: Sequence[FinishedPart]) -> None:
        """Do nothing: all files have their names."""


class NpyFile:
    """An .npy file of the embeddings alone. It grows in a folder beside its place until it is complete."""

    def __init__(self, file: Path, none: NDArray[Any], column: str) -> None:
        """Write a file.

        Args:
            file: The file, which may exist; it is replaced at the end.
            none: An array of no embeddings, `(0, width)`.
            column: Column of the embeddings.
        """
        self.folder = file.with_name(f"{file.name}.job")
        self._target, self._none, self._column = file, none, column
        self._file = self.folder / "rows.npy"

    @contextmanager
    def part(self, finished: Sequence[FinishedPart]) -> Iterator[WriteTable]:
        """Go on behind the rows of the finished parts; see `Output.part`."""
        header = npy_header(self._none.dtype, 0, self._none.shape[1])
        start = len(header) + sum(part.written for part in finished) * self._none.shape[1] * self._none.itemsize
        with ExitStack() as held:
            with _writing(self.folder):
                self._file.touch()
                file = held.enter_context(self._file.open("r+b"))
                file.write(header)
                file.truncate(start)
                file.seek(start)

            def write(table: pa.Table) -> None:
                with _writing(self.folder):
                    file.write(self._vectors(table).data)

            yield write
            with _writing(self.folder):
                file.flush()
                os.fsync(file.fileno())

    def finish(self, finished: Sequence[FinishedPart]) -> None:
        """Write the number of rows, and give the file its name.

        Raises:
            InputError: It cannot be written.
        """
        rows = sum(part.written for part in finished)
        with _writing(self._target):
            if self._file.exists():  # a kill at this place may have left the folder alone
                with self._file.open("r+b") as file:
                    file.write(npy_header(self._none.dtype, rows, self._none.shape[1]))
                    os.fsync(file.fileno())
                self._file.replace(self._target)
            shutil.rmtree(self.folder)

    def _vectors(self, table: pa.Table) -> NDArray[Any]:
        column = table[self._column].combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False)
        return np.ascontiguousarray(values, self._none.dtype).reshape(-1, self._none.shape[1])


class _ParquetPart:
    """A file that is opened at its first table."""

    def __init__(self, file: Path, folder: Path) -> None:
        self._file, self._folder = file, folder
        self._writer: parquet.ParquetWriter | None = None

    def write(self, table: pa.Table) -> None:
        """Write a table as a group of rows."""
        with _writing(self._folder):
            if self._writer is None:
                names = [name for name in table.column_names if not name.endswith(_NO_DICTIONARY)]
                self._writer = parquet.ParquetWriter(self._file, table.schema, compression="zstd", use_dictionary=names)
            self._writer.write_table(table)

    def close(self) -> None:
        """Write the footer. Closing twice is fine."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()


def _sync(file: Path) -> None:
    with file.open("r+b") as written:
        os.fsync(written.fileno())


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Translate an OSError of the output. Only writes run inside, so that no error of the job blames the output."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(
            f"{shorten_path(output)} cannot be written: {reason}; what is finished is kept: go on with --resume"
        ) from error
