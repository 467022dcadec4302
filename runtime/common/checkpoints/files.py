"""Check and read the files of a checkpoint, which may come from a stranger."""

from pathlib import Path
from typing import Any

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.files import LARGEST_JSON, check_regular, parse_json, read_bytes

_LARGEST_TOKENIZER = 2**28
"""Largest size of a file of a tokenizer, in bytes."""
_LARGEST = {
    "*.safetensors": None,
    **dict.fromkeys(["*.json", "*.jinja", "*.model", "vocab.*", "merges.txt", "dict.txt"], _LARGEST_TOKENIZER),
}
"""Largest sizes of the files that transformers reads, in bytes, by patterns of their names; None: any."""


def check_files(folder: Path) -> None:
    """Refuse a folder with pipes, devices or huge files among those that transformers reads, before it reads them.

    Raises:
        CheckpointError: There is such a file.
    """
    for pattern, largest in _LARGEST.items():
        for file in sorted(folder.glob(pattern)):
            try:
                check_regular(file, largest=largest)
            except OSError as error:
                raise CheckpointError(f"{file} cannot be read: {error}") from error


def read_json(file: Path, kind: type[Any]) -> Any:
    """Return the value in a JSON file.

    Args:
        file: File to read.
        kind: Type of the value, `dict` or `list`.

    Raises:
        CheckpointError: There is no such file, it is too large, it is not JSON, or the value has another type.
    """
    try:
        value = parse_json(read_bytes(file, largest=LARGEST_JSON))
    except FileNotFoundError:
        raise CheckpointError(f"there is no file {file}") from None
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON ({error})") from error
    if not isinstance(value, kind):
        raise CheckpointError(f"{file} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value
