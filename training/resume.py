"""Keep the state of a training until it is finished, so that it can go on after a stop."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.common.errors import InputError, OutputExistsError
from encort.runtime.common.temporary import name_in_longer
from encort.training.saved_state import check_state, is_complete

_PLAN_FILE = "plan.json"
_UNFINISHED = ".unfinished"


def unfinished_folder(output: Path) -> Path:
    """Return the folder that holds the state of a training until its checkpoint is complete."""
    return output.with_name(name_in_longer(output, added=len(_UNFINISHED)) + _UNFINISHED)


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
        InputError: The saved state is damaged or of a training with another plan, or other machines do not see the
            folder.
    """
    with arguments.main_process_first(local=False):
        if arguments.process_index == 0:
            plan = _to_json({**plan, "processes": arguments.world_size})
            _make_folder(folder, plan, resume=resume, overwrite=overwrite)
    if not (folder / _PLAN_FILE).is_file():
        raise InputError(
            f"{folder} is not visible on every machine of this training; choose an output on a disk that they share"
        )
    return next(map(str, reversed(_states(folder))), None)


def _make_folder(folder: Path, plan: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    states = _states(folder)
    if states and resume:
        _check_same_plan(folder, _read_plan(folder), plan)
        for state in states:  # the last one, and the one with the best weights
            check_state(state, processes=plan["processes"])
        return
    if states and not overwrite:
        raise OutputExistsError(
            f"{folder} holds a training that was not finished; go on with --resume, or start anew with --overwrite"
        )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / _PLAN_FILE).write_text(json.dumps(plan, indent=2) + "\n", encoding="utf-8")


def _states(folder: Path) -> list[Path]:
    """Return the folders of the complete states, in the order in which they were saved."""
    states = [state for state in folder.glob("checkpoint-*") if state.name[11:].isdecimal() and is_complete(state)]
    return sorted(states, key=lambda state: int(state.name.removeprefix("checkpoint-")))


def _read_plan(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / _PLAN_FILE).read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError, OSError) as error:
        raise InputError(
            f"{folder / _PLAN_FILE}, the plan of the unfinished training, is damaged ({error}); start anew with "
            "--overwrite"
        ) from error


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
