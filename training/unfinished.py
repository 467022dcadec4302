"""Trainings that were stopped, and how they go on."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.runtime.errors import InputError, OutputExistsError

_PLAN = "plan.json"


def unfinished_folder(output: Path) -> Path:
    """Where the state of a training lies until its checkpoint is complete."""
    return output.with_name(f"{output.name}.unfinished")


def begin(folder: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool, is_main: bool = True) -> Path | None:
    """Make the folder for a training, or find the state that an earlier one left there.

    Args:
        plan: What decides about the weights: data, model, settings.
        resume: Go on from there.
        overwrite: Throw it away.
        is_main: Of several processes one comes first and writes; the others look only.

    Returns:
        The last state that was saved whole; None to begin anew.

    Raises:
        OutputExistsError: There is one, and neither is wanted.
        InputError: It was begun with another plan.
    """
    state = _last_state(folder)
    if state is not None and resume:
        _check_same(folder, json.loads((folder / _PLAN).read_text(encoding="utf-8")), _plain(plan))
        return state
    if not is_main:
        return None
    if state is not None and not overwrite:
        raise OutputExistsError(
            f"{folder} holds a training that was not finished; go on with --resume, or begin anew with --overwrite"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _PLAN).write_text(json.dumps(plan, indent=2, default=str) + "\n", encoding="utf-8")
    return None


def _last_state(folder: Path) -> Path | None:
    # transformers writes this file last.
    states = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(states, key=lambda state: int(state.name.removeprefix("checkpoint-")), default=None)


def _plain(plan: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(plan, default=str))


def _check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = [
        f"{name} {before.get(name)!r} became {now.get(name)!r}"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if changed:
        raise InputError(
            f"the training in {folder} cannot go on, because it was begun otherwise: {'; '.join(changed)}; "
            "give the same again, or begin anew with --overwrite"
        )
