"""Output of the command line: JSON lines, a numpy array, or Parquet, one record per input."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, TextIO

import numpy as np
from numpy.typing import NDArray

from encort.runtime.cli.streams import check_stdout
from encort.runtime.common.errors import InputError
from encort.runtime.common.extras import require
from encort.runtime.common.folders import shorten_path
from encort.runtime.common.npy import NpyRows
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.temporary import temporary_beside
from encort.runtime.corpus.inputs import Record

NoEmbeddings = Callable[[], NDArray[Any]]
_NONE = np.empty((0, 0), np.float32)


class Writer(Protocol):
    """Writes records in the order of the inputs."""

    def write(self, records: Sequence[Record]) -> None:
        """Write the records of the next inputs."""


@contextmanager
def open_writer(output: Path | None, *, no_embeddings: NoEmbeddings = lambda: _NONE) -> Iterator[Writer]:
    """Open a writer by the ending of `output`: .jsonl, .npy or .parquet. None or `-` writes JSON lines to stdout.

    A file is written under a temporary name, and is complete when it appears.

    Args:
        output: File to write.
        no_embeddings: Returns an array of no embeddings, whose width and dtype an .npy file has even without records.
            It is called at the end.

    Raises:
        InputError: The ending is unknown, or the file cannot be made there; or standard output is closed.
        MissingExtraError: The file is Parquet, and pyarrow is not installed.
    """
    if output is None or str(output) == "-":
        check_stdout()
        yield JsonLines(sys.stdout)
        return
    ending = output.suffix.lower()
    if ending not in _WRITERS:
        raise InputError(f"{output}: cannot write {output.suffix or 'no ending'}; use one of {', '.join(_WRITERS)}")
    with ExitStack() as held:
        with _writing(output):
            if not output.parent.is_dir():
                raise InputError(f"{output}: there is no folder {output.parent}")
            if output.is_dir():
                raise InputError(f"{output} is a folder; name a file")
            if output.exists() and not output.is_file():
                raise InputError(f"{output} is a pipe or a device; leave --output out and redirect standard output")
            target = output.resolve()  # a link stays, and what it leads to is replaced
            temporary = held.enter_context(temporary_beside(target, Path.touch))
            opened = held.enter_context(ExitStack())
            writer = opened.enter_context(_WRITERS[ending](temporary, no_embeddings))
        yield _Translating(writer, output)
        with _writing(output):
            opened.close()
            temporary.replace(target)


def check_writes_errors(output: Path | None) -> None:
    """Refuse an output that cannot hold the errors of inputs.

    Raises:
        InputError: The output is .npy.
    """
    if output is not None and output.suffix.lower() == ".npy":
        raise InputError(f"{output}: .npy holds embeddings alone; use --on-error skip, or write .jsonl or .parquet")


@contextmanager
def _writing(output: Path) -> Iterator[None]:
    """Translate an OSError of the output. Only writes run inside, so that no error of the caller blames the output."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{shorten_path(output)} cannot be written: {error.strerror or error}") from error


class _Translating:
    """Writer whose errors name the output."""

    def __init__(self, writer: Writer, output: Path) -> None:
        self._writer, self._output = writer, output

    def write(self, records: Sequence[Record]) -> None:
        """Write the records, and translate errors."""
        with _writing(self._output):
            self._writer.write(records)


class JsonLines:
    """Writes one JSON object per line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, records: Sequence[Record]) -> None:
        """Write one line per record, at once."""
        for record in records:
            text = dump_json(record, default=np.ndarray.tolist)
            self._file.write(text + "\n")
        self._file.flush()


class Embeddings:
    """Writes embeddings into an .npy file, and refuses other records."""

    def __init__(self, file: IO[bytes]) -> None:
        self.rows = NpyRows(file)

    def write(self, records: Sequence[Record]) -> None:
        """Write the embeddings at once.

        Raises:
            InputError: A record is no embedding.
        """
        if not all("embedding" in record for record in records):
            raise InputError(".npy holds embeddings alone; write other results to .jsonl or .parquet")
        if records:
            vectors = [record["embedding"] for record in records]
            self.rows.append(np.array(vectors, getattr(vectors[0], "dtype", np.float32)))


@contextmanager
def _json_lines(file: Path) -> Iterator[Writer]:
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        yield JsonLines(lines)


@contextmanager
def _npy(file: Path, no_embeddings: NoEmbeddings) -> Iterator[Writer]:
    with file.open("wb") as target:
        writer = Embeddings(target)
        yield writer
        writer.rows.append(no_embeddings())
        writer.rows.finish()


@contextmanager
def _parquet(file: Path) -> Iterator[Writer]:
    require("writing Parquet", "parquet", "pyarrow")
    from encort.runtime.cli.parquet_rows import open_parquet

    with open_parquet(file) as writer:
        yield writer


_WRITERS: dict[str, Callable[[Path, NoEmbeddings], AbstractContextManager[Writer]]] = {
    ".jsonl": lambda file, _: _json_lines(file),
    ".npy": _npy,
    ".parquet": lambda file, _: _parquet(file),
}
"""Writers by file ending; each takes the file, and what returns an array of no embeddings."""
