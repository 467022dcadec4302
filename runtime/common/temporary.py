"""Temporary files and folders next to an output, and the removal of those that interrupted processes left.

A process holds a lock (`flock`) on its temporary file or folder. The system releases the lock when the process ends, in
whatever way it ends. A leftover is therefore one that can be locked. Without `flock` (Windows, some network disks),
nothing is known about other processes, and leftovers stay.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from glob import escape
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PARTIAL, REPLACED = ".partial", ".old"
"""Endings of an output that is being written, and of an earlier output that is being replaced."""
_ADDED = len(f"..{uuid.UUID(int=0).hex}{PARTIAL}")
"""Bytes that the name of a temporary file or folder has in addition to that of its output."""
_LONGEST_NAME = 255
"""Most bytes of a name that file systems allow."""


@contextlib.contextmanager
def temporary_beside(output: Path, create: Callable[[Path], None]) -> Iterator[Path]:
    """Yield a new, locked file or folder next to an output, and remove it at the end if it is still there.

    Leftovers of earlier processes with the same output are removed first.

    Args:
        output: Path of the output, which the caller makes by renaming the temporary one.
        create: Creates an empty file or folder at a path, such as `Path.mkdir` or `Path.touch`.

    Raises:
        OSError: The file or folder cannot be created.
    """
    remove_leftovers(output)
    with contextlib.ExitStack() as held:
        temporary = _create_locked(output, create, held)
        try:
            yield temporary
        finally:
            _remove(temporary)


def name_in_longer(output: Path, *, added: int) -> str:
    """Return the name of an output, to be a part of a longer name; a hash of it if only that would be too long.

    Args:
        output: The output.
        added: Bytes that the longer name has in addition.
    """
    encoded = os.fsencode(output.name)
    needs_hash = _LONGEST_NAME - added < len(encoded) <= _LONGEST_NAME
    return hashlib.sha256(encoded).hexdigest() if needs_hash else output.name


def replace_folder(temporary: Path, output: Path) -> None:
    """Rename a folder to an output, and remove the earlier output.

    Raises:
        OSError: The folder cannot be renamed; the earlier output is still there.
    """
    if not output.exists():
        temporary.rename(output)
        return
    # A folder with files cannot be the target of a rename, so the old folder is moved away first.
    old = temporary.with_suffix(REPLACED)
    output.rename(old)
    try:
        temporary.rename(output)
    except OSError:
        old.rename(output)
        raise
    _remove(old)


@contextlib.contextmanager
def hold_lock(file: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file that exists, and yield whether it could be had. Without `flock`, it always can.

    Args:
        file: File to lock. The lock ends with the block, or with the process.
        wait: Whether to wait for a process that holds it.
    """
    with file.open("rb") as opened:
        try:
            if fcntl is not None:
                fcntl.flock(opened, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a network disk without locks
            pass
        yield True


def remove_leftovers(output: Path) -> None:
    """Remove what processes that are gone have left next to an output.

    A process that ended between the two renames of `replace_folder` left no output: the earlier one is restored, also
    if its temporary folder was removed.
    """
    for partial in _named(output, PARTIAL):
        with _lock(partial, wait=False) as is_locked:
            if is_locked:
                _remove(partial)
    for old in _named(output, REPLACED):
        if old.with_suffix(PARTIAL).exists():
            continue
        if old.is_dir() and not old.is_symlink() and not output.exists():
            old.rename(output)
        else:
            _remove(old)


def _named(output: Path, ending: str) -> list[Path]:
    return list(output.parent.glob(f".{escape(name_in_longer(output, added=_ADDED))}.{'[0-9a-f]' * 32}{ending}"))


def _create_locked(output: Path, create: Callable[[Path], None], held: contextlib.ExitStack) -> Path:
    """Create a temporary file or folder; its lock is released when `held` is closed."""
    while True:
        temporary = output.with_name(f".{name_in_longer(output, added=_ADDED)}.{uuid.uuid4().hex}{PARTIAL}")
        create(temporary)
        held.enter_context(_lock(temporary, wait=True))
        # Before it was locked, another process may have taken it for a leftover and removed it.
        if temporary.exists():
            return temporary


@contextlib.contextmanager
def _lock(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock of a file or folder, and yield whether it could be had."""
    with contextlib.ExitStack() as opened:
        is_locked = False
        if fcntl is not None:
            with contextlib.suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                opened.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
                is_locked = True
        yield is_locked


def _remove(path: Path) -> None:
    """Remove a file or a folder as far as the system allows. A link is removed, and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
