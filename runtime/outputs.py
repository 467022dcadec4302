"""Where the command line's results go: JSON lines, a numpy array, or Parquet, one record an input."""

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from encort.runtime.errors import InputError, MissingExtraError

Record = Mapping[str, Any]


class Writer(Protocol):
    def write(self, records: Sequence[Record]) -> None:
        """Take the records of the next inputs, in input order."""


@contextmanager
def open_writer(output: Path | None, *, dimension: int) -> Iterator[Writer]:
    """A writer by the ending of `output`: .jsonl, .npy, .parquet; JSON lines on stdout if None.

    A file is written under a temporary name and appears complete or not at all.

    Args:
        dimension: Size of an embedding, which .npy needs to know even when there is none.

    Raises:
        InputError: The ending is none of these, or the folder does not exist.
        MissingExtraError: Parquet without pyarrow.
    """
    if output is None:
        yield JsonLines(sys.stdout)
        return
    if output.suffix not in _WRITERS:
        raise InputError(f"{output}: cannot write {output.suffix or 'no ending'}; use one of {', '.join(_WRITERS)}")
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex}.partial")
    try:
        if not output.parent.is_dir():
            raise InputError(f"{output}: there is no folder {output.parent}")
        if output.is_dir():
            raise InputError(f"{output} is a folder; name a file")
        with _WRITERS[output.suffix](temporary, dimension) as writer:
            yield writer
        temporary.replace(output)
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


class JsonLines:
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, records: Sequence[Record]) -> None:
        for record in records:
            self._file.write(json.dumps(record, ensure_ascii=False, default=np.ndarray.tolist) + "\n")
        self._file.flush()


class Collector:
    """Keeps the records, for formats that are written in one piece."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def write(self, records: Sequence[Record]) -> None:
        self.records += records


class EmbeddingCollector(Collector):
    def write(self, records: Sequence[Record]) -> None:
        if not all("embedding" in record for record in records):
            raise InputError(".npy holds embeddings alone; write other results to .jsonl or .parquet")
        super().write(records)


@contextmanager
def _json_lines(file: Path) -> Iterator[Writer]:
    with file.open("w", encoding="utf-8") as lines:
        yield JsonLines(lines)


@contextmanager
def _npy(file: Path, dimension: int) -> Iterator[Writer]:
    collector = EmbeddingCollector()
    yield collector
    rows = [record["embedding"] for record in collector.records]
    with file.open("wb") as target:
        np.save(target, np.array(rows, np.float32).reshape(len(rows), dimension))


@contextmanager
def _parquet(file: Path) -> Iterator[Writer]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise MissingExtraError("writing Parquet", extra="parquet") from None
    collector = Collector()
    yield collector
    parquet.write_table(pyarrow.Table.from_pylist(collector.records), file)


_WRITERS: dict[str, Callable[[Path, int], AbstractContextManager[Writer]]] = {
    ".jsonl": lambda file, _: _json_lines(file),
    ".npy": _npy,
    ".parquet": lambda file, _: _parquet(file),
}
"""From a file and the size of an embedding, by ending."""
