"""Open and read files that strangers may have made. Kind and size are known before a byte is read.

A pipe or a device would block for ever, and a file of 40 GB would take all memory. Every file of a bundle and of a
checkpoint is opened here.
"""

import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

LARGEST_JSON = 2**26
"""Largest size of a JSON file of settings, in bytes. The names of a million weights or labels fit in."""


@contextmanager
def open_regular(file: Path) -> Iterator[BufferedReader]:
    """Open a file for reading, and refuse folders, pipes, sockets and devices without waiting for them.

    Raises:
        OSError: The file is missing, cannot be opened, or is no regular file.
    """
    # Without O_NONBLOCK the opening of a pipe waits for a writer. Regular files are read as usual.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    _check_kind(file, file.stat())  # opening some devices has effects
    with os.fdopen(os.open(file, flags), "rb") as stream:
        _check_kind(file, os.fstat(stream.fileno()))
        yield stream


def check_regular(file: Path, *, largest: int | None = None) -> None:
    """Refuse a file that is no regular file, or is too large, without opening it. Links are followed.

    Args:
        file: File to check.
        largest: Largest size in bytes; None: any.

    Raises:
        OSError: The file is missing, is no regular file, or is larger.
    """
    status = file.stat()
    _check_kind(file, status)
    if largest is not None:
        _check_size(status.st_size, largest)


def read_bytes(file: Path, *, largest: int) -> bytes:
    """Return the content of a file.

    Args:
        file: File to read.
        largest: Largest size in bytes.

    Raises:
        OSError: The file is missing, cannot be read, is no regular file, or is larger.
    """
    with open_regular(file) as stream:
        _check_size(os.fstat(stream.fileno()).st_size, largest)
        content = stream.read(largest + 1)
        _check_size(len(content), largest)  # it may have grown, and files of the system say 0
    return content


def parse_json(content: str | bytes) -> Any:
    """Return a JSON value, and refuse what other readers would read in another way.

    Raises:
        ValueError: The content is not UTF-8 or not JSON, is nested too deeply, or has a key twice in one object.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8")
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _check_kind(file: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "pipe, socket or device"
        raise OSError(f"{file.name} is a {kind}, not a file")


def _check_size(size: int, largest: int) -> None:
    if size > largest:
        raise OSError(f"it has {size:,} bytes, and files of this kind have at most {largest:,}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {name!r} is there twice")
    return values
