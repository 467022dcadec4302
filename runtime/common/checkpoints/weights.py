"""The weights of a checkpoint: their files and their names."""

import re
from collections.abc import Sequence
from pathlib import Path

from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.files import LARGEST_JSON, open_regular, parse_json

_FILE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq)$")
_SHOWN = 4


def weight_files(folder: Path) -> list[Path]:
    """Return the files with weights that transformers loads; none if there are no safetensors.

    Raises:
        CheckpointError: The index names a path outside of the folder, or a file that is missing; or a file has weights
            that the index does not list, which transformers would leave out.
    """
    if (folder / _FILE).is_file():
        return [folder / _FILE]
    index = folder / _INDEX
    if not index.exists():
        return []
    names = read_json(index, dict).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{index} has no weight_map of files by weight; save the model again")
    files = sorted(set(names.values()))
    for name in files:
        if Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which is no file of its folder; save the model again")
        if not (folder / name).is_file():
            raise CheckpointError(f"{index} names {name!r}, which the folder lacks; save the model again")
    for name in files:
        unlisted = [weight for weight in _stored_names(folder / name) if names.get(weight) != name]
        if unlisted := [weight for weight in unlisted if not is_buffer(weight)]:
            raise CheckpointError(
                f"{folder / name} has weights that {_INDEX} does not list for it: {shortened(unlisted)}; save the "
                "model again"
            )
    return [folder / name for name in files]


def _stored_names(file: Path) -> list[str]:
    """Return the names of the weights in a safetensors file; none if it is damaged, which its loading tells."""
    try:
        with open_regular(file) as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = parse_json(stream.read(size)) if size <= LARGEST_JSON else {}
    except (OSError, ValueError):
        return []
    return [name for name in header if name != "__metadata__"] if isinstance(header, dict) else []


def is_buffer(name: str) -> bool:
    """Return whether a saved weight is a buffer that every model makes itself; earlier transformers saved them."""
    return _BUFFERS.search(name) is not None


def shortened(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are, for a message."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
