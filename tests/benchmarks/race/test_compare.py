import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from encort.benchmarks.race.compare import main
from encort.benchmarks.results import Outcome, Race, save
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError

MakeRace = Callable[..., Race]


def ours(seconds: list[float]) -> Outcome:
    return Outcome(name="encort", key="encort", precision="fp32", seconds=seconds)


def compare(folder: Path, before: Race, after: Race, *options: str) -> Result:
    """Run the command on two races."""
    files = [str(save(race, folder / f"{name}.json")) for name, race in (("before", before), ("after", after))]
    return CliRunner().invoke(main, [*files, *options])


def test_a_slower_program_is_reported(make_race: MakeRace, tmp_path: Path) -> None:
    result = compare(tmp_path, make_race(ours([2.0, 2.1, 2.0])), make_race(ours([2.4, 2.5, 2.4])))
    assert result.exit_code == 1
    assert "encort fp32: 1.20x (1.14-1.25) of the time before, SLOWER" in result.output


def test_a_slower_machine_is_not_reported(make_race: MakeRace, tmp_path: Path) -> None:
    before, after = make_race(ours([2.0, 2.1, 2.0])), make_race(ours([4.0, 4.2, 4.0]), product=[2.0, 2.0, 2.0])
    assert compare(tmp_path, before, after).exit_code == 0


def peers(random: np.random.Generator, speeds: FloatArray) -> list[Outcome]:
    """Return ten systems on a machine whose speed varies from round to round, with noise for each system."""
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
def test_a_slower_program_is_reported_on_a_noisy_machine(
    make_race: MakeRace, tmp_path: Path, slowed: float, exit_code: int, seed: int
) -> None:
    random, races = np.random.default_rng(seed), []
    for factor in (1.0, slowed):
        speeds = random.lognormal(sigma=0.3, size=7)
        seconds = 2 * factor * speeds * random.lognormal(sigma=0.15, size=7)
        races.append(make_race(ours(seconds.tolist()), *peers(random, speeds), product=speeds.tolist()))
    result = compare(tmp_path, *races, "--threshold", "1.2")
    assert result.exit_code == exit_code, result.output


def test_a_matrix_product_of_any_precision_is_a_control(make_race: MakeRace, tmp_path: Path) -> None:
    races = [make_race(ours([seconds] * 3)) for seconds in (2.0, 3.0)]
    half = [
        dataclasses.replace(race, limits=[dataclasses.replace(limit, precision="fp16") for limit in race.limits])
        for race in races
    ]
    assert "encort fp32: 1.50x (1.50-1.50)" in compare(tmp_path, *half).output


def test_results_without_a_control_are_not_compared(make_race: MakeRace, tmp_path: Path) -> None:
    result = compare(tmp_path, *(make_race(ours([2.0] * 3), product=[]) for _ in range(2)))
    assert result.exit_code == InputError.exit_code
    assert "only encort's own times" in result.output


def test_noise_is_not_reported(make_race: MakeRace, tmp_path: Path) -> None:
    result = compare(tmp_path, make_race(ours([2.0, 3.0, 2.0])), make_race(ours([2.2, 2.0, 3.0])))
    assert result.exit_code == 0


def test_the_threshold_can_be_set(make_race: MakeRace, tmp_path: Path) -> None:
    before, after = make_race(ours([2.0, 2.0, 2.0])), make_race(ours([2.4, 2.4, 2.4]))
    assert compare(tmp_path, before, after, "--threshold", "1.3").exit_code == 0


def test_a_slower_peer_is_printed_without_a_failure(make_race: MakeRace, tmp_path: Path) -> None:
    def peer(seconds: list[float]) -> Outcome:
        return Outcome(name="Snail", key="snail", precision="fp32", seconds=seconds)

    result = compare(tmp_path, make_race(peer([2.0, 2.0, 2.0])), make_race(peer([3.0, 3.0, 3.0])))
    assert result.exit_code == 0
    assert "Snail fp32: 1.50x" in result.output


def test_slower_calls_of_one_shape_are_reported(make_race: MakeRace, tmp_path: Path) -> None:
    def with_calls(seconds: float) -> Outcome:
        return dataclasses.replace(ours([2.0, 2.0, 2.0]), grid={"1 x 16": [seconds] * 3})

    result = compare(tmp_path, make_race(with_calls(0.001)), make_race(with_calls(0.002)))
    assert result.exit_code == 1
    assert "encort fp32, 1 x 16: 2.00x (2.00-2.00) of the time before, SLOWER" in result.output


def test_a_system_that_failed_is_not_an_improvement(make_race: MakeRace, tmp_path: Path) -> None:
    failed = dataclasses.replace(ours([]), error="out of memory")
    result = compare(tmp_path, make_race(ours([2.0, 2.0, 2.0])), make_race(failed))
    assert result.exit_code == InputError.exit_code != 1
    assert "the second result lacks encort fp32" in result.output


@pytest.mark.parametrize("change", [{"texts": 11}, {"tokens": 7}, {"threads": 4}, {"model": "bert-base"}])
def test_results_of_different_work_are_not_compared(
    make_race: MakeRace, tmp_path: Path, change: dict[str, object]
) -> None:
    race = make_race(ours([2.0, 2.0, 2.0]))
    result = compare(tmp_path, race, dataclasses.replace(race, **change))
    assert result.exit_code == InputError.exit_code
    assert "not of the same work" in result.output
