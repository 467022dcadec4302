"""Files of a bundle whose content was checked: small files as bytes, graphs as paths that are watched for changes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from encort.runtime.bundle.external_data import external_files
from encort.runtime.bundle.identity import FileIdentity, MappedFile
from encort.runtime.bundle.manifest import FileEntry
from encort.runtime.common.errors import BundleError, BundleFileChangedError, BundleFileMissingError, BundlePathError
from encort.runtime.common.files import check_regular, open_regular, read_bytes

_LARGEST_GRAPH = 2**31
"""Largest size of a graph without its external weights, in bytes, which is a limit of protobuf."""
_LARGEST_SMALL_FILE = 2**28
"""Largest size of a file that is read as a whole, such as a tokenizer, in bytes."""


class GraphFiles:
    """A graph and its external weights. ONNX Runtime opens them by path, so that sessions share the mapped weights.

    Attributes:
        path: File of the graph.
    """

    def __init__(self, path: Path, entries: Mapping[Path, FileEntry]) -> None:
        """Name the files; `check` reads them.

        Args:
            path: File of the graph.
            entries: The manifest's entries of the graph and of its weights.
        """
        self.path, self._entries = path, entries
        self._checked: dict[Path, FileIdentity] = {}

    def check(self) -> None:
        """Check the hashes of files that were not checked yet, or changed since then.

        Raises:
            BundlePathError: The graph reads weights from a file whose hash is not checked.
            BundleError: See `check_file`.
        """
        for file, entry in self._entries.items():
            if file not in self._checked or self._checked[file] != _identity(file):
                self._checked[file] = check_file(file, entry)
                if file == self.path:
                    self._check_weights()

    def _check_weights(self) -> None:
        with _translated(self.path):
            check_regular(self.path, largest=_LARGEST_GRAPH)
            with open_regular(self.path) as stream:
                try:
                    names = external_files(stream)
                except ValueError as error:
                    raise BundleError(f"{self.path} is not an ONNX graph ({error}); export the bundle again") from error
        if unchecked := {name for name in names if self.path.parent / name not in self._entries}:
            raise BundlePathError(
                f"{self.path} reads weights from {', '.join(map(repr, sorted(unchecked)))}, which encort.json does not "
                "name for it; do not trust it"
            )

    @contextmanager
    def unchanged(self) -> Iterator[Path]:
        """Yield the path of the graph, for a block that opens it. All its files are the checked ones to the end.

        Raises:
            BundleFileChangedError: A file was replaced or written before the end of the block.
            BundleError: See `check`.
        """
        self.check()
        try:
            yield self.path
        except Exception as error:
            self._refuse_changes(error)
            raise
        self._refuse_changes()

    def map_weights(self) -> list[MappedFile]:
        """Return the external weights that ONNX Runtime maps; call it in the block of `unchanged`."""
        return [
            MappedFile(file, self._checked[file], entry.sha256)
            for file, entry in self._entries.items()
            if file != self.path
        ]

    def _refuse_changes(self, cause: Exception | None = None) -> None:
        for file, identity in self._checked.items():
            if _identity(file) != identity:
                raise BundleFileChangedError(f"{file} changed while it was opened; load the bundle again") from cause


def read_file(file: Path, entry: FileEntry) -> bytes:
    """Return the content of a small file, after checking its size and its SHA-256.

    Raises:
        BundleFileMissingError: The file does not exist.
        BundleFileChangedError: The size or the hash differs.
        BundleError: The file cannot be read, is too large, or is no regular file.
    """
    with _translated(file):
        _compare_size(file, file.stat().st_size, entry)
        content = read_bytes(file, largest=_LARGEST_SMALL_FILE)
    _compare_hash(file, hashlib.sha256(content).hexdigest(), entry)
    return content


def check_file(file: Path, entry: FileEntry) -> FileIdentity:
    """Check the size and the SHA-256 of a file of any size, and return the identity of what was read.

    Raises:
        BundleError: See `read_file`.
    """
    with _translated(file), open_regular(file) as stream:
        # Before the content: a write during the reading gives the file another identity.
        identity = FileIdentity.of(os.fstat(stream.fileno()))
        _compare_size(file, identity.bytes, entry)
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    _compare_hash(file, actual, entry)
    return identity


@contextmanager
def _translated(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise BundleFileMissingError(
            f"{file.parent} lacks {file.name}; copy the whole folder, or export again"
        ) from None
    except OSError as error:
        raise BundleError(f"{file} cannot be read: {error}") from error


def _identity(file: Path) -> FileIdentity | None:
    try:
        return FileIdentity.of(file.stat())
    except OSError:
        return None


def _compare_size(file: Path, actual: int, entry: FileEntry) -> None:
    if actual != entry.bytes:
        raise BundleFileChangedError(
            f"{file} is not the file that was exported ({actual:,} bytes instead of {entry.bytes:,}); "
            "copy the bundle or export it again"
        )


def _compare_hash(file: Path, actual: str, entry: FileEntry) -> None:
    if actual != entry.sha256:
        raise BundleFileChangedError(
            f"{file} is not the file that was exported (SHA-256 differs); copy the bundle or export it again"
        )
