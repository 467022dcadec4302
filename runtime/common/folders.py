"""Write folders in one step, so that they are complete or absent, and hash files."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.runtime.common.output.escaping import is_unicode
from encort.runtime.common.temporary import replace_folder, temporary_beside

NOT_UTF8 = "the path is not UTF-8, which ONNX Runtime and other libraries need; rename the folder"

_LONGEST_PATH = 200
"""Characters of a path in a message."""


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_missing_folder(name: str) -> bool:
    """Return whether a name is a path and not a hub id, and there is no such folder."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    return is_path and not Path(name).is_dir()


def shorten_path(path: str | Path) -> str:
    """Return a path for a message; the end of a very long one is left out."""
    text = str(path)
    return text if len(text) <= _LONGEST_PATH else f"{text[:_LONGEST_PATH]}…"


def check_replaceable(folder: Path, *, marker: str, overwrite: bool) -> None:
    """Check early that a folder can and may be written.

    It may if it does not exist or is empty. With `overwrite` it may also be an earlier output, so that a typing mistake
    never deletes other files.

    Args:
        folder: Folder to write.
        marker: Name of a file that every earlier output has.
        overwrite: Whether an earlier output may be replaced.

    Raises:
        InputError: The path of the folder is not Unicode.
        OutputExistsError: The folder may not be written.
    """
    if not is_unicode(str(folder.absolute())):
        raise InputError(f"{folder}: {NOT_UTF8}")
    is_folder = folder.is_dir() and not folder.is_symlink()
    if not (folder.exists() or folder.is_symlink()) or (is_folder and not any(folder.iterdir())):
        return
    if not (is_folder and (folder / marker).is_file()):
        raise OutputExistsError(f"{folder} exists and has no {marker}: it will not be replaced; choose another output")
    if not overwrite:
        raise OutputExistsError(f"{folder} exists; choose another output, or pass overwrite (--overwrite)")


def check_writable(output: Path) -> None:
    """Check early that a file or folder can be made, by making a temporary one.

    Folders above it that do not exist are not made.

    Raises:
        InputError: The disk is read-only or full, the name is too long, permission is missing, or what should be a
            folder above it is a file.
    """
    try:
        above = next(folder for folder in output.absolute().parents if folder.exists())
        with temporary_beside(above / output.name, Path.mkdir):
            pass
    except OSError as error:
        raise InputError(f"{shorten_path(output)} cannot be written: {error.strerror}") from error


def check_file_writable(file: Path) -> None:
    """Check early that a file can be made or overwritten; see `check_writable`.

    Raises:
        InputError: See `check_writable`; or there is a folder, or a file that is protected.
    """
    if file.is_dir():
        raise InputError(f"{file} is a folder; name a file")
    check_writable(file)
    if file.exists() and not os.access(file, os.W_OK):
        raise InputError(f"{file} cannot be written: Permission denied")


@contextlib.contextmanager
def new_folder(folder: Path, *, marker: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder next to `folder`, and rename it to `folder` at the end of the block.

    If the block raises, the temporary folder is removed and `folder` stays as it was. Temporary folders of processes
    that were killed are removed by the next call with the same `folder`.

    Args:
        folder: Folder to write.
        marker: See `check_replaceable`.
        overwrite: See `check_replaceable`.

    Raises:
        OutputExistsError: See `check_replaceable`.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(folder, Path.mkdir) as temporary:
        check_replaceable(folder, marker=marker, overwrite=overwrite)
        yield temporary
        check_replaceable(folder, marker=marker, overwrite=overwrite)
        replace_folder(temporary, folder)
