"""Costs are fitted to measured times and kept between processes. A damaged file of costs does not stop `load`."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import encort
from encort.runtime.engine.costs import Costs, costs_file, measure_costs, read_costs, save_costs
from tests.runtime.conftest import RunEncort

KNOWN = Costs(run=4e-3, token=5e-5, attention=2e-7)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time of `perf_counter`, which passes only when the test changes it."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def timed_run(clock: list[float], costs: Costs) -> Callable[[int, int], None]:
    """Return a run that takes as long as the costs say."""

    def run(rows: int, length: int) -> None:
        clock[0] += costs.seconds(np.full(rows, length))

    return run


@pytest.mark.parametrize("longest", [64, 128, 512])
def test_fitted_costs_equal_the_costs_of_the_measured_times(clock: list[float], longest: int) -> None:
    costs = measure_costs(timed_run(clock, KNOWN), max_length=longest)
    assert (costs.run, costs.token, costs.attention) == pytest.approx(
        (KNOWN.run, KNOWN.token, KNOWN.attention), rel=0.02
    )


@pytest.mark.parametrize("longest", [1, 2, 8, 9])
def test_a_model_of_short_texts_has_costs_too(clock: list[float], longest: int) -> None:
    costs = measure_costs(timed_run(clock, KNOWN), max_length=longest)
    assert costs.seconds(np.array([longest])) == pytest.approx(KNOWN.seconds(np.array([longest])), rel=0.1)


def test_no_cost_is_below_zero(clock: list[float]) -> None:
    def run(rows: int, length: int) -> None:
        clock[0] += 1e-3 / (rows * length)

    assert min(vars(measure_costs(run, max_length=128)).values()) >= 0


def test_attention_pads_the_rows_of_a_run_to_the_longest_row() -> None:
    costs = Costs(run=1, token=0, attention=1)
    assert costs.seconds(np.array([3, 2])) == 1 + 2 * 9


def test_a_row_is_padded_if_that_costs_less_than_a_run() -> None:
    costs = Costs(run=5, token=0, attention=1)
    assert costs.min_length_to_batch(3) == 2  # 9 - 4 is the run
    assert costs.min_length_to_batch(2) == 0
    assert Costs(attention=0).min_length_to_batch(512) == 0


def test_saved_costs_are_read_again(cache: Path) -> None:
    file = costs_file("abc", "P")
    assert file is not None
    save_costs(KNOWN, file)
    assert cache in file.parents
    assert read_costs(file, Costs()) == KNOWN
    assert len({file, costs_file("abd", "P"), costs_file("abc", "Q")}) == 3


UNUSABLE = ["NaN", "Infinity", "-1e-9", '"x"']
DAMAGED = ["", "[]", "{}", "null", "\xff", *(f'{{"run": {run}, "token": 1, "attention": 1}}' for run in UNUSABLE)]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_gives_the_defaults_and_a_warning(caplog: pytest.LogCaptureFixture, content: str) -> None:
    file = costs_file("abc", "P")
    assert file is not None
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="latin-1")
    assert read_costs(file, Costs()) == Costs()
    assert "does not hold costs" in caplog.text


def test_a_missing_file_gives_the_defaults_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert read_costs(costs_file("abc", "P"), Costs(run=7)) == Costs(run=7)
    assert caplog.text == ""


def test_a_calibrated_model_is_loaded_with_its_costs(classifier_bundle: Path, cache: Path) -> None:
    with encort.load(classifier_bundle, threads=1) as model:
        expected = model.embed(["hello", "my card", "my card is lost"])
        costs = model.calibrate()
    with encort.load(classifier_bundle, threads=1) as model:
        assert model._engine.costs == costs != Costs()
        np.testing.assert_allclose(model.embed(["hello", "my card", "my card is lost"]), expected, atol=1e-6)
    assert json.loads(next((cache / "encort").iterdir()).read_text(encoding="utf-8")) == vars(costs)


def test_the_command_keeps_measured_costs(run_encort: RunEncort, classifier_bundle: Path, cache: Path) -> None:
    done = run_encort("bench", classifier_bundle, "--calibrate", XDG_CACHE_HOME=str(cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert "per token" in done.stdout
    assert len(list((cache / "encort").iterdir())) == 1
