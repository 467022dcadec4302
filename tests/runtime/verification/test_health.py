"""A running model is compared with its golden vectors."""

from pathlib import Path

import numpy as np
import pytest

import encort
from encort.errors import FidelityError, ModelClosedError


@pytest.mark.parametrize("max_length", [None, 8])
def test_a_model_of_any_task_is_healthy(multi_head: Path, encoder_bundle: Path, max_length: int | None) -> None:
    for bundle in (multi_head, encoder_bundle):
        with encort.load(bundle, threads=1, max_length=max_length) as model:
            model.check_health()
            model.check_health()


def test_wrong_results_and_a_closed_model_are_not(encoder_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with encort.load(encoder_bundle, threads=1) as model:
        run = model._engine.run
        monkeypatch.setattr(model._engine, "run", lambda *arguments: [np.roll(rows, 1, -1) for rows in run(*arguments)])
        with pytest.raises(FidelityError, match="this process serves wrong results"):
            model.check_health()
        monkeypatch.undo()
    with pytest.raises(ModelClosedError):
        model.check_health()
