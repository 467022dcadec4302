import dataclasses
import json
import math
from typing import Any

import pytest

from encort.runtime.common.errors import InputError
from encort.training.settings import SCHEDULES, TrainingSettings, default_learning_rate

WRONG = {
    "epochs": [0, -1],
    "batch_size": [0],
    "gradient_accumulation": [0, -4],
    "learning_rate": [0, -1e-5, math.nan],
    "weight_decay": [-0.1, math.nan],
    "schedule": ["constant", ""],
    "warmup_ratio": [-0.1, 1.1, math.nan],
    "dropout": [-0.1, 1.0],
    "max_length": [2, 0],
    "save_steps": [0],
    "patience": [0],
    "seed": [-1, 2**32],
}
EDGES = {
    "epochs": [1],
    "batch_size": [1],
    "gradient_accumulation": [1],
    "learning_rate": [1e-9, None],
    "weight_decay": [0],
    "schedule": [*SCHEDULES],
    "warmup_ratio": [0, 1],
    "dropout": [0, 0.99, None],
    "max_length": [3, None],
    "save_steps": [1, None],
    "patience": [1, None],
    "bf16": [True, False, None],
    "seed": [0, 2**32 - 1],
}


def pairs(table: dict[str, list[Any]]) -> list[tuple[str, Any]]:
    return [(name, value) for name, values in table.items() for value in values]


@pytest.mark.parametrize(("name", "value"), pairs(WRONG))
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"^{name} must be .*, got {value}$"):
        TrainingSettings(**{name: value})


@pytest.mark.parametrize(("name", "value"), pairs(EDGES))
def test_the_limits_of_a_range_are_accepted(name: str, value: Any) -> None:
    assert getattr(TrainingSettings(**{name: value}), name) == value


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(InputError) as refusal:
        TrainingSettings(**{name: values[0] for name, values in WRONG.items()})
    assert [problem.split()[0] for problem in str(refusal.value).split("; ")] == list(WRONG)


def test_every_setting_has_a_test() -> None:
    assert EDGES.keys() == {field.name for field in dataclasses.fields(TrainingSettings)}


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="one of linear, cosine, constant_with_warmup, got steps"):
        TrainingSettings(schedule="steps")


def test_settings_survive_json() -> None:
    settings = TrainingSettings(schedule="cosine", patience=2)
    assert TrainingSettings(**json.loads(json.dumps(dataclasses.asdict(settings)))) == settings


def test_settings_cannot_be_given_by_position() -> None:
    with pytest.raises(TypeError):
        TrainingSettings(4)


@pytest.mark.parametrize(("hidden", "rate"), [(768, 5e-5), (384, 2e-4), (1536, 1.25e-5), (24, 1e-3)])
def test_narrower_encoders_get_a_higher_learning_rate(hidden: int, rate: float) -> None:
    assert default_learning_rate(hidden) == pytest.approx(rate)


def test_a_task_can_lower_the_learning_rate() -> None:
    assert default_learning_rate(384, at_768=2.5e-5) == pytest.approx(1e-4)


def test_a_learning_rate_of_the_user_is_kept() -> None:
    assert TrainingSettings(learning_rate=3e-4).with_learning_rate(1e-4).learning_rate == 3e-4
    assert TrainingSettings(epochs=7).with_learning_rate(1e-4) == TrainingSettings(epochs=7, learning_rate=1e-4)
