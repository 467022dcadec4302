"""Errors of a full or failing disk, which libraries report in their own ways."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import shorten_path

_FAILED_WRITE = re.compile(r"I/O error|PytorchStreamWriter failed|os error \d+|inline_container")
"""In the messages of safetensors, whose error has no public parent, and of `torch.save`, a RuntimeError."""


@contextmanager
def translated_disk_errors(output: Path) -> Iterator[None]:
    """Make one error of all failed writes.

    Args:
        output: Folder that is written, for the message.

    Raises:
        InputError: The disk is full, or fails.
    """
    try:
        yield
    except Exception as error:
        if not _FAILED_WRITE.search(str(error)):
            raise
        raise InputError(f"{shorten_path(output)} cannot be written: {error}") from error
