"""Files of a bundle whose content was checked: small files as bytes, graphs as paths that are watched for changes."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from encort.runtime.common.errors import BundleError, BundleFileChangedError, BundleFileMissingError


@dataclass(frozen=True)
class FileIdentity:
    """Facts of a file that change when it is written or replaced.

    Attributes:
        device: Number of the file system.
        inode: Number of the file in it.
        bytes: Size.
        modified_ns: Time of the last write, which programs can set.
        changed_ns: Time of the last write or other change, which only the system sets.
    """

    device: int
    inode: int
    bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> "FileIdentity":
        """Return the identity of the file with this status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class GraphFiles:
    """A graph and its external weights. ONNX Runtime opens them by path, so that sessions share the mapped weights.

    Attributes:
        path: File of the graph.
    """

    def __init__(self, path: Path, hashes: Mapping[Path, str]) -> None:
        """Name the files; `check` reads them.

        Args:
            path: File of the graph.
            hashes: SHA-256 of the graph and of its weights.
        """
        self.path, self._hashes = path, hashes
        self._checked: dict[Path, FileIdentity] = {}

    def check(self) -> None:
        """Check the hashes of files that were not checked yet, or changed since then.

        Raises:
            BundleError: See `check_file`.
        """
        for file, digest in self._hashes.items():
            if file not in self._checked or self._checked[file] != _identity(file):
                self._checked[file] = check_file(file, digest)

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

    def _refuse_changes(self, cause: Exception | None = None) -> None:
        for file, identity in self._checked.items():
            if _identity(file) != identity:
                raise BundleFileChangedError(f"{file} changed while it was opened; load the bundle again") from cause


def read_file(file: Path, digest: str) -> bytes:
    """Return the content of a small file, after checking its SHA-256.

    Raises:
        BundleFileMissingError: The file does not exist.
        BundleFileChangedError: The hash differs.
        BundleError: The file cannot be read.
    """
    with _opened(file) as stream:
        content = stream.read()
    _compare(file, hashlib.sha256(content).hexdigest(), digest)
    return content


def check_file(file: Path, digest: str) -> FileIdentity:
    """Check the SHA-256 of a file of any size, and return the identity of what was read.

    Raises:
        BundleError: See `read_file`.
    """
    with _opened(file) as stream:
        # Before the content: a write during the reading gives the file another identity.
        identity = FileIdentity.of(os.fstat(stream.fileno()))
        actual = hashlib.file_digest(stream, "sha256").hexdigest()
    _compare(file, actual, digest)
    return identity


@contextmanager
def _opened(file: Path) -> Iterator[BufferedReader]:
    try:
        with file.open("rb") as stream:
            yield stream
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


def _compare(file: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise BundleFileChangedError(
            f"{file} is not the file that was exported (SHA-256 differs); copy the bundle or export it again"
        )
