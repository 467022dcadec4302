"""Identity of a file: tells whether it was written or replaced, without reading it again."""

import hashlib
import os
import weakref
from pathlib import Path
from typing import NamedTuple

from encort.runtime.common.errors import BundleFileChangedError
from encort.runtime.common.forks import new_lock


class FileIdentity(NamedTuple):
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


class MappedFile:
    """A file of weights that a session has mapped into memory, so that a write in place changes the weights.

    The file is held open: it stays the mapped one when another file gets its name.
    """

    def __init__(self, file: Path, identity: FileIdentity, sha256: str) -> None:
        """Open the file.

        Args:
            file: Its path.
            identity: What it was when its content was checked.
            sha256: SHA-256 of its content.

        Raises:
            OSError: The file cannot be opened.
        """
        self._file, self._identity, self._sha256 = file, identity, sha256
        self._stream, self._lock = file.open("rb", buffering=0), new_lock()
        weakref.finalize(self, self._stream.close)

    def check(self) -> None:
        """Refuse weights that were overwritten. The content is read again only if something of the file changed.

        Raises:
            BundleFileChangedError: The content changed.
        """
        if self._identity == self._current():
            return
        with self._lock:
            identity = self._current()
            if self._identity == identity:  # another thread has read the content meanwhile
                return
            self._stream.seek(0)
            if hashlib.file_digest(self._stream, "sha256").hexdigest() != self._sha256:
                raise BundleFileChangedError(
                    f"{self._file} was overwritten while a model had it loaded: load the bundle again, and replace "
                    "bundles by rename"
                )
            self._identity = identity

    def _current(self) -> FileIdentity:
        return FileIdentity.of(os.fstat(self._stream.fileno()))
