import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from encort.training.fit import training_arguments
from encort.training.settings import SCHEDULES, TrainingSettings


@pytest.fixture
def arguments(tmp_path: Path) -> Callable[..., transformers.TrainingArguments]:
    """Return `arguments(**settings)`, the training arguments of transformers."""

    def make(**settings: Any) -> transformers.TrainingArguments:
        return training_arguments(
            TrainingSettings(**{"learning_rate": 1e-4, **settings}), metric="f1", folder=tmp_path / "state"
        )

    return make


def test_a_training_does_not_inherit_the_precision_of_another(
    arguments: Callable[..., transformers.TrainingArguments],
) -> None:
    arguments(bf16=True)
    arguments(bf16=False)
    assert os.environ.get("ACCELERATE_MIXED_PRECISION", "no") == "no"


NAMES = {
    "epochs": ("num_train_epochs", 3),
    "batch_size": ("per_device_train_batch_size", 7),
    "gradient_accumulation": ("gradient_accumulation_steps", 5),
    "learning_rate": ("learning_rate", 0.004),
    "weight_decay": ("weight_decay", 0.3),
    "schedule": ("lr_scheduler_type", "cosine"),
    "save_steps": ("save_steps", 11),
    "seed": ("seed", 99),
}


@pytest.mark.parametrize(("setting", "name", "value"), [(key, *pair) for key, pair in NAMES.items()])
def test_every_setting_reaches_transformers(
    setting: str, name: str, value: Any, arguments: Callable[..., transformers.TrainingArguments]
) -> None:
    assert getattr(arguments(**{setting: value}), name) == value != getattr(arguments(), name)


@pytest.mark.parametrize(("ratio", "steps"), [(0.0, 0), (0.25, 50), (1.0, 200)])
def test_the_learning_rate_rises_in_a_share_of_the_steps(
    ratio: float, steps: int, arguments: Callable[..., transformers.TrainingArguments]
) -> None:
    assert arguments(warmup_ratio=ratio).get_warmup_steps(200) == steps


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_transformers_knows_every_schedule(
    schedule: str, arguments: Callable[..., transformers.TrainingArguments]
) -> None:
    assert arguments(schedule=schedule).lr_scheduler_type == schedule


def test_the_metric_of_the_task_chooses_the_best_weights(
    arguments: Callable[..., transformers.TrainingArguments],
) -> None:
    chosen = arguments()
    assert (chosen.metric_for_best_model, chosen.greater_is_better) == ("f1", True)
    assert chosen.load_best_model_at_end


@pytest.mark.parametrize(("save_steps", "strategy"), [(None, "epoch"), (11, "steps")])
def test_evaluations_are_as_frequent_as_saves(
    save_steps: int | None, strategy: str, arguments: Callable[..., transformers.TrainingArguments]
) -> None:
    chosen = arguments(save_steps=save_steps)
    assert (chosen.eval_strategy, chosen.save_strategy) == (strategy, strategy)
    assert chosen.eval_steps == save_steps


@pytest.mark.parametrize(
    ("has_gpu", "asked", "expected"),
    [
        (True, None, True),
        (True, False, False),
        (False, None, False),
        (False, False, False),
    ],
)
def test_bfloat16_is_the_default_on_gpus_that_support_it(
    has_gpu: bool,
    asked: bool | None,
    expected: bool,
    arguments: Callable[..., transformers.TrainingArguments],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if has_gpu:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        monkeypatch.setattr("transformers.TrainingArguments._setup_devices", torch.device("cpu"))
    elif torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert arguments(bf16=asked).bf16 is expected
