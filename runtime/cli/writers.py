"""Where the command line's results go: JSON lines, a numpy array, or Parquet, one record an input."""

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, TextIO

import numpy as np

from encort.runtime.common.errors import InputError, MissingExtraError

Record = Mapping[str, Any]


class Writer(Protocol):
    def write(self, records: Sequence[Record]) -> None:
        """Take the records of the next inputs, in input order."""


@contextmanager
def open_writer(output: Path | None, *, dimension: int) -> Iterator[Writer]:
    """A writer by the ending of `output`, in either case: .jsonl, .npy, .parquet; JSON lines on stdout if None.

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
    ending = output.suffix.lower()
    if ending not in _WRITERS:
        raise InputError(f"{output}: cannot write {output.suffix or 'no ending'}; use one of {', '.join(_WRITERS)}")
    temporary = output.with_name(f".{output.name}.{uuid.uuid4().hex}.partial")
    try:
        with ExitStack() as opened:
            with _writing(output):
                if not output.parent.is_dir():
                    raise InputError(f"{output}: there is no folder {output.parent}")
                if output.is_dir():
                    raise InputError(f"{output} is a folder; name a file")
                writer = opened.enter_context(_WRITERS[ending](temporary, dimension))
            yield _Translating(writer, output)
            with _writing(output):
                opened.close()
                temporary.replace(output)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Around what writes and nothing else: a caller's own OSError is not about the output."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error}") from error


class _Translating:
    """A writer whose errors name the output."""

    def __init__(self, writer: Writer, output: Path) -> None:
        self._writer, self._output = writer, output

    def write(self, records: Sequence[Record]) -> None:
        with _writing(self._output):
            self._writer.write(records)


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
