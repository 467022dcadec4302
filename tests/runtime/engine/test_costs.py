"""Costs are fitted to measured times, kept between processes, and never stand in the way of loading."""

import json
import time

import numpy as np
import pytest

import encort
from encort.runtime.engine.costs import Costs, costs_file, measure_costs, read_costs, save_costs

KNOWN = Costs(run=4e-3, token=5e-5, attention=2e-7)


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only where it is told to."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def passing(clock, costs):
    def run(rows, length):
        clock[0] += costs.seconds(np.full(rows, length))

    return run


@pytest.mark.parametrize("longest", [64, 128, 512])
def test_the_costs_that_made_the_times_are_found(clock, longest):
    found = measure_costs(passing(clock, KNOWN), max_length=longest)
    assert (found.run, found.token, found.attention) == pytest.approx(
        (KNOWN.run, KNOWN.token, KNOWN.attention), rel=0.02
    )


@pytest.mark.parametrize("longest", [1, 2, 8, 9])
def test_a_model_of_short_texts_has_costs_too(clock, longest):
    found = measure_costs(passing(clock, KNOWN), max_length=longest)
    assert found.seconds(np.array([longest])) == pytest.approx(KNOWN.seconds(np.array([longest])), rel=0.1)


def test_no_cost_is_below_zero(clock):
    def run(rows, length):
        clock[0] += 1e-3 / (rows * length)

    assert min(vars(measure_costs(run, max_length=128)).values()) >= 0


def test_attention_pads_the_rows_of_a_run_to_the_longest():
    costs = Costs(run=1, token=0, attention=1)
    assert costs.seconds(np.array([3, 2])) == 1 + 2 * 9


def test_a_row_is_padded_where_that_is_less_than_a_run():
    costs = Costs(run=5, token=0, attention=1)
    assert costs.min_length_to_batch(3) == 2  # 9 - 4 is the run
    assert costs.min_length_to_batch(2) == 0
    assert Costs(attention=0).min_length_to_batch(512) == 0


def test_saved_costs_are_read_again(cache):
    file = costs_file("abc", "P")
    save_costs(KNOWN, file)
    assert cache in file.parents
    assert read_costs(file, Costs()) == KNOWN
    assert len({file, costs_file("abd", "P"), costs_file("abc", "Q")}) == 3


UNUSABLE = ["NaN", "Infinity", "-1e-9", '"x"']
DAMAGED = ["", "[]", "{}", "null", "\xff", *(f'{{"run": {run}, "token": 1, "attention": 1}}' for run in UNUSABLE)]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_is_the_defaults_and_a_warning(caplog, content):
    file = costs_file("abc", "P")
    file.parent.mkdir(parents=True)
    file.write_text(content, encoding="latin-1")
    assert read_costs(file, Costs()) == Costs()
    assert "does not hold costs" in caplog.text


def test_no_file_is_the_defaults_without_a_word(caplog):
    assert read_costs(costs_file("abc", "P"), Costs(run=7)) == Costs(run=7)
    assert caplog.text == ""


def test_a_calibrated_model_is_loaded_with_its_costs(classifier_bundle):
    with encort.load(classifier_bundle, threads=1) as model:
        expected = model.embed(["hello", "my card", "my card is lost"])
        costs = model.calibrate()
    with encort.load(classifier_bundle, threads=1) as model:
        assert model._engine.costs == costs != Costs()
        np.testing.assert_allclose(model.embed(["hello", "my card", "my card is lost"]), expected, atol=1e-6)
    assert json.loads(next(costs_file("x", "P").parent.iterdir()).read_text(encoding="utf-8")) == vars(costs)


def test_the_command_keeps_what_it_measures(run_encort, classifier_bundle, cache):
    kept = run_encort("bench", classifier_bundle, "--calibrate", XDG_CACHE_HOME=str(cache))
    assert (kept.returncode, kept.stderr) == (0, "")
    assert "each token" in kept.stdout
    assert len(list((cache / "encort").iterdir())) == 1
