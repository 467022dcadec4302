"""Write folders in one step, so that they are complete or absent, and hash files."""

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path

from encort.runtime.common.errors import OutputExistsError
from encort.runtime.common.temporary import replace_folder, temporary_beside


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_missing_folder(name: str) -> bool:
    """Return whether a name is a path and not a hub id, and there is no such folder."""
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1 or Path(name).exists()
    return is_path and not Path(name).is_dir()


def check_replaceable(folder: Path, *, marker: str, overwrite: bool) -> None:
    """Check early that a folder may be written.

    It may if it does not exist or is empty. With `overwrite` it may also be an earlier output, so that a typing mistake
    never deletes other files.

    Args:
        folder: Folder to write.
        marker: Name of a file that every earlier output has.
        overwrite: Whether an earlier output may be replaced.

    Raises:
        OutputExistsError: The folder may not be written.
    """
    is_folder = folder.is_dir() and not folder.is_symlink()
    if not (folder.exists() or folder.is_symlink()) or (is_folder and not any(folder.iterdir())):
        return
    if not (is_folder and (folder / marker).is_file()):
        raise OutputExistsError(f"{folder} exists and has no {marker}: it will not be replaced; choose another output")
    if not overwrite:
        raise OutputExistsError(f"{folder} exists; choose another output, or pass overwrite (--overwrite)")


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
