"""Keep the state of a training until it is finished, so that it can go on after a stop."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.common.errors import InputError, OutputExistsError

_PLAN_FILE = "plan.json"


def unfinished_folder(output: Path) -> Path:
    """Return the folder that holds the state of a training until its checkpoint is complete."""
    return output.with_name(f"{output.name}.unfinished")


def prepare_run(
    folder: Path,
    plan: Mapping[str, Any],
    arguments: transformers.TrainingArguments,
    *,
    resume: bool,
    overwrite: bool,
) -> str | None:
    """Make the folder of a training, or find the state that an earlier run saved there.

    In distributed training the first process does this, and the others wait for it.

    Args:
        folder: Folder of the state, see `unfinished_folder`.
        plan: Everything that determines the final weights: data, model, settings.
        arguments: Tell which process this is.
        resume: Go on from the saved state, if there is one.
        overwrite: Delete the saved state, if there is one and `resume` is not set.

    Returns:
        The folder of the last complete state; None to start from the beginning.

    Raises:
        OutputExistsError: There is a saved state, and neither `resume` nor `overwrite` is set.
        InputError: The saved state is of a training with another plan, or other machines do not see the folder.
    """
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            plan = _to_json({**plan, "processes": arguments.world_size})
            _make_folder(folder, plan, resume=resume, overwrite=overwrite)
    if not (folder / _PLAN_FILE).is_file():
        raise InputError(
            f"{folder} is not visible on every machine of this training; choose an output on a disk that they share"
        )
    state = _last_state(folder)
    return None if state is None else str(state)


def _make_folder(folder: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    has_state = _last_state(folder) is not None
    if has_state and resume:
        _check_same_plan(folder, json.loads((folder / _PLAN_FILE).read_text(encoding="utf-8")), plan)
        return
    if has_state and not overwrite:
        raise OutputExistsError(
            f"{folder} holds a training that was not finished; go on with --resume, or start anew with --overwrite"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _PLAN_FILE).write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def _last_state(folder: Path) -> Path | None:
    # transformers writes this file last, so that a state with it is complete.
    states = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return max(states, key=lambda state: int(state.name.removeprefix("checkpoint-")), default=None)


def _to_json(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plan as it is read from JSON, where tuples are lists and all keys are strings."""
    plain: dict[str, Any] = json.loads(json.dumps(plan, default=str))
    return plain


def _check_same_plan(folder: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    changes = [
        f"{name} {saved.get(name)!r} became {current.get(name)!r}"
        for name in {**saved, **current}
        if saved.get(name) != current.get(name)
    ]
    if changes:
        raise InputError(
            f"the training in {folder} cannot go on, because its plan has changed: {'; '.join(changes)}; "
            "give the same values as before, or start anew with --overwrite"
        )
