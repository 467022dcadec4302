"""Trainings that were stopped, and how they go on."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.common.errors import InputError, OutputExistsError

_PLAN = "plan.json"


def unfinished_folder(output: Path) -> Path:
    """Where the state of a training lies until its checkpoint is complete."""
    return output.with_name(f"{output.name}.unfinished")


def begin(
    folder: Path,
    plan: Mapping[str, Any],
    arguments: transformers.TrainingArguments,
    *,
    resume: bool,
    overwrite: bool,
) -> str | None:
    """Make the folder for a training, or find the state that an earlier one left there.

    Of several processes the first one does it, while the others wait.

    Args:
        plan: What decides about the weights: data, model, settings.
        resume: Go on from there.
        overwrite: Throw it away.

    Returns:
        The last state that was saved whole; None to begin anew.

    Raises:
        OutputExistsError: There is one, and neither is wanted.
        InputError: It was begun with another plan, or other machines do not see the folder.
    """
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            _make(folder, _plain({**plan, "processes": arguments.world_size}), resume=resume, overwrite=overwrite)
    if not (folder / _PLAN).is_file():
        raise InputError(f"{folder} is not seen by every machine of this training; put it on a disk that they share")
    state = _last_state(folder)
    return None if state is None else str(state)


def _make(folder: Path, plan: Any, *, resume: bool, overwrite: bool) -> None:
    is_there = _last_state(folder) is not None
    if is_there and resume:
        _check_same(folder, json.loads((folder / _PLAN).read_text(encoding="utf-8")), plan)
        return
    if is_there and not overwrite:
        raise OutputExistsError(
            f"{folder} holds a training that was not finished; go on with --resume, or begin anew with --overwrite"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _PLAN).write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


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
