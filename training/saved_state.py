"""Seal the saved state of a training, and check that it has not changed before the training goes on from it."""

import json
import re
from pathlib import Path

from encort.runtime.common.errors import InputError
from encort.runtime.common.folders import sha256

_STATE_FILE = "trainer_state.json"
"""File that transformers writes last."""
_SEAL_FILE = "sha256.json"
_NEEDED = ("model.safetensors", "optimizer.pt", "scheduler.pt")
_OF_ONE_PROCESS = re.compile(r"rng_state_\d+\.pth")
"""Files that other processes may still be writing when the first one seals the state."""


def is_complete(folder: Path) -> bool:
    """Return whether all files of a state were written, so that the training was not stopped while it saved it."""
    if (folder / _SEAL_FILE).exists():
        return True
    try:
        json.loads((folder / _STATE_FILE).read_bytes())
    except (ValueError, RecursionError, OSError):
        return False
    return True


def seal(folder: Path) -> None:
    """Write the SHA-256 of every file of a state into the state, in one step."""
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if _is_sealed(file)}
    unfinished = folder / f"{_SEAL_FILE}.partial"
    unfinished.write_text(json.dumps(files, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(folder / _SEAL_FILE)


def check_state(folder: Path, *, processes: int) -> None:
    """Refuse a state from which a training would go on with other results, or fail.

    Args:
        folder: Folder of a complete state.
        processes: Number of processes of the training.

    Raises:
        InputError: A file is missing, or is not as it was saved.
    """
    random = ["rng_state.pth"] if processes == 1 else [f"rng_state_{number}.pth" for number in range(processes)]
    missing = [name for name in (*_NEEDED, *random) if not (folder / name).is_file()]
    if missing:
        raise _damaged(folder, f"it lacks {', '.join(missing)}")
    if not (folder / _SEAL_FILE).exists():
        return  # the training was stopped between the two last files
    try:
        sealed = dict(json.loads((folder / _SEAL_FILE).read_text(encoding="utf-8")))
        changed = [name for name, digest in sealed.items() if sha256(folder / name) != digest]
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise _damaged(folder, str(error)) from error
    if changed:
        raise _damaged(folder, f"{', '.join(changed)} changed after the training saved it")


def _is_sealed(file: Path) -> bool:
    return file.is_file() and file.name != _SEAL_FILE and not _OF_ONE_PROCESS.fullmatch(file.name)


def _damaged(folder: Path, reason: str) -> InputError:
    return InputError(f"the saved state {folder} is damaged ({reason}); start anew with --overwrite")
