import os

import pytest
import torch

from encort.training.fit import training_arguments
from encort.training.settings import TrainingSettings


@pytest.fixture
def arguments(tmp_path):
    """`arguments(**settings)`: what transformers is told."""

    def make(**settings):
        return training_arguments(
            TrainingSettings(**{"learning_rate": 1e-4, **settings}), metric="f1", folder=tmp_path / "state"
        )

    return make


def test_a_training_does_not_inherit_the_precision_of_another(arguments):
    arguments(bf16=True)
    arguments(bf16=False)
    assert os.environ["ACCELERATE_MIXED_PRECISION"] == "no"


NAMES = {
    "epochs": ("num_train_epochs", 3),
    "batch_size": ("per_device_train_batch_size", 7),
    "gradient_accumulation": ("gradient_accumulation_steps", 5),
    "learning_rate": ("learning_rate", 0.004),
    "weight_decay": ("weight_decay", 0.3),
    "schedule": ("lr_scheduler_type", "cosine"),
    "warmup_ratio": ("warmup_ratio", 0.4),
    "save_steps": ("save_steps", 11),
    "seed": ("seed", 99),
}


@pytest.mark.parametrize(("setting", "name", "value"), [(key, *pair) for key, pair in NAMES.items()])
def test_transformers_is_told_every_setting(setting, name, value, arguments):
    assert getattr(arguments(**{setting: value}), name) == value != getattr(arguments(), name)


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant_with_warmup"])
def test_a_schedule_may_be_given_by_its_name(schedule, arguments):
    assert arguments(schedule=schedule).lr_scheduler_type == schedule


def test_the_best_weights_are_chosen_by_the_tasks_metric(arguments):
    found = arguments()
    assert (found.metric_for_best_model, found.greater_is_better, found.load_best_model_at_end) == ("f1", True, True)


@pytest.mark.parametrize(("save_steps", "when"), [(None, "epoch"), (11, "steps")])
def test_it_is_measured_as_often_as_it_is_saved(save_steps, when, arguments):
    found = arguments(save_steps=save_steps)
    assert (found.eval_strategy, found.save_strategy) == (when, when)
    assert found.eval_steps == save_steps


@pytest.mark.parametrize(
    ("has_gpu", "asked", "computed"),
    [
        (True, None, True),
        (True, False, False),
        (False, None, False),
        (False, False, False),
    ],
)
def test_bfloat16_is_where_a_gpu_has_it_unless_told_otherwise(has_gpu, asked, computed, arguments, monkeypatch):
    if has_gpu:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
        monkeypatch.setattr("transformers.TrainingArguments._setup_devices", torch.device("cpu"))
    elif torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert arguments(bf16=asked).bf16 is computed
