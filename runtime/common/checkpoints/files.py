"""Read the JSON files of a checkpoint, which may come from a stranger."""

import json
from pathlib import Path
from typing import Any

from encort.runtime.common.errors import CheckpointError

_LARGEST_FILE = 2**26
"""Largest size of a JSON file, in bytes. A million labels, or the names of a million weights, fit in."""


def read_json(file: Path, kind: type[Any]) -> Any:
    """Return the value in a JSON file.

    Args:
        file: File to read.
        kind: Type of the value, `dict` or `list`.

    Raises:
        CheckpointError: There is no such file, it is too large, it is not JSON, or the value has another type.
    """
    if not file.is_file():
        raise CheckpointError(f"there is no file {file}")
    if file.stat().st_size > _LARGEST_FILE:
        raise CheckpointError(f"{file} has {file.stat().st_size:,} bytes, more than any file of settings")
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON ({error})") from error
    if not isinstance(value, kind):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value
