import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner

from encort.benchmarks.race.compare import main
from encort.benchmarks.results import Outcome, save
from encort.runtime.common.errors import InputError


def ours(seconds: list[float]) -> Outcome:
    return Outcome(name="encort", key="encort", precision="fp32", seconds=seconds)


def compare(tmp_path, before, after, *options):
    files = [str(save(race, tmp_path / f"{name}.json")) for name, race in (("before", before), ("after", after))]
    return CliRunner().invoke(main, [*files, *options])


def test_a_slower_program_is_caught(make_race, tmp_path):
    found = compare(tmp_path, make_race(ours([2.0, 2.1, 2.0])), make_race(ours([2.4, 2.5, 2.4])))
    assert found.exit_code == 1
    assert "encort fp32: 1.20x (1.14-1.25) of the time before, SLOWER" in found.output


def test_a_slower_machine_is_not(make_race, tmp_path):
    before, after = make_race(ours([2.0, 2.1, 2.0])), make_race(ours([4.0, 4.2, 4.0]), product=[2.0, 2.0, 2.0])
    assert compare(tmp_path, before, after).exit_code == 0


def peers(random, speeds):
    """Ten systems on a machine whose rounds are not equally fast, and which has other guests."""
    return [
        Outcome(
            name=f"peer {number}",
            key=f"peer{number}",
            precision="fp32",
            seconds=(3 * speeds * random.lognormal(sigma=0.15, size=len(speeds))).tolist(),
        )
        for number in range(10)
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("slowed", "exit_code"), [(1.0, 0), (2.0, 1)])
def test_it_is_caught_on_a_noisy_machine(make_race, tmp_path, slowed, exit_code, seed):
    random, races = np.random.default_rng(seed), []
    for factor in (1.0, slowed):
        speeds = random.lognormal(sigma=0.3, size=7)
        seconds = 2 * factor * speeds * random.lognormal(sigma=0.15, size=7)
        races.append(make_race(ours(seconds.tolist()), *peers(random, speeds), product=speeds.tolist()))
    found = compare(tmp_path, *races, "--threshold", "1.2")
    assert found.exit_code == exit_code, found.output


def test_any_product_is_a_measure(make_race, tmp_path):
    races = [make_race(ours([seconds] * 3)) for seconds in (2.0, 3.0)]
    half = [
        dataclasses.replace(race, limits=[dataclasses.replace(each, precision="fp16") for each in race.limits])
        for race in races
    ]
    assert "encort fp32: 1.50x (1.50-1.50)" in compare(tmp_path, *half).output


def test_without_a_measure_nothing_is_compared(make_race, tmp_path):
    found = compare(tmp_path, *(make_race(ours([2.0] * 3), product=[]) for _ in range(2)))
    assert found.exit_code == InputError.exit_code
    assert "nothing but encort's own" in found.output


def test_noise_is_not(make_race, tmp_path):
    found = compare(tmp_path, make_race(ours([2.0, 3.0, 2.0])), make_race(ours([2.2, 2.0, 3.0])))
    assert found.exit_code == 0


def test_the_threshold_is_the_users(make_race, tmp_path):
    before, after = make_race(ours([2.0, 2.0, 2.0])), make_race(ours([2.4, 2.4, 2.4]))
    assert compare(tmp_path, before, after, "--threshold", "1.3").exit_code == 0


def test_a_slower_peer_is_told_but_is_no_failure(make_race, tmp_path):
    def peer(seconds: list[float]) -> Outcome:
        return Outcome(name="Snail", key="snail", precision="fp32", seconds=seconds)

    found = compare(tmp_path, make_race(peer([2.0, 2.0, 2.0])), make_race(peer([3.0, 3.0, 3.0])))
    assert found.exit_code == 0
    assert "Snail fp32: 1.50x" in found.output


def test_slower_calls_are_caught(make_race, tmp_path):
    def one(seconds: float) -> Outcome:
        return dataclasses.replace(ours([2.0, 2.0, 2.0]), grid={"1 x 16": [seconds] * 3})

    found = compare(tmp_path, make_race(one(0.001)), make_race(one(0.002)))
    assert found.exit_code == 1
    assert "encort fp32, 1 x 16: 2.00x (2.00-2.00) of the time before, SLOWER" in found.output


def test_what_has_failed_is_no_improvement(make_race, tmp_path):
    failed = dataclasses.replace(ours([]), error="out of memory")
    found = compare(tmp_path, make_race(ours([2.0, 2.0, 2.0])), make_race(failed))
    assert found.exit_code == InputError.exit_code != 1
    assert "the second result lacks encort fp32" in found.output


@pytest.mark.parametrize("change", [{"texts": 11}, {"tokens": 7}, {"threads": 4}, {"model": "bert-base"}])
def test_other_work_is_not_compared(make_race, tmp_path, change):
    race = make_race(ours([2.0, 2.0, 2.0]))
    found = compare(tmp_path, race, dataclasses.replace(race, **change))
    assert found.exit_code == InputError.exit_code
    assert "not of the same work" in found.output
