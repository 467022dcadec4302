import random
from collections.abc import Callable

import pytest

from encort.benchmarks.timing import change, measure_in_turn, median_of_rounds, speedup


def test_every_round_measures_all_systems_in_its_own_order() -> None:
    calls: list[str] = []

    def system(name: str) -> Callable[[], int]:
        def call() -> int:
            calls.append(name)
            return len(calls)

        return call

    results = measure_in_turn({name: system(name) for name in "abc"}, rounds=20)
    rounds = [calls[start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(names) == ["a", "b", "c"] for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert results["b"] == [3 * number + names.index("b") + 1 for number, names in enumerate(rounds)]


def test_a_speedup_is_the_median_of_the_ratios_of_the_rounds() -> None:
    # In two rounds the machine is three times slower. That changes the medians of the seconds, and no ratio.
    assert speedup([1, 3, 3, 1], [2, 6, 6, 2]).median == pytest.approx(2)
    ratio = speedup([1.0, 3.0, 1.0], [2.0, 6.0, 8.0])
    assert (ratio.median, ratio.low, ratio.high) == (2, 2, 8)


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5)])
def test_the_interval_agrees_with_tables_of_the_sign_test(count: int, outside: int) -> None:
    interval = median_of_rounds([*range(count)])
    assert (interval.low, interval.high) == (outside, count - 1 - outside)


def test_the_interval_contains_the_true_median_as_often_as_promised() -> None:
    draw, misses = random.Random(1), 0
    for _ in range(1000):
        interval = median_of_rounds([draw.expovariate(1.0) for _ in range(9)])
        misses += not interval.low <= 0.6931 <= interval.high
    assert misses < 70


def test_a_change_between_two_runs_has_an_interval_from_both() -> None:
    assert change([1.0, 1.0, 1.0], [1.2, 1.2, 1.2]).low == pytest.approx(1.2)
    noisy = change([1.0, 1.5, 1.0, 1.5], [1.2, 1.1, 1.3, 1.4])
    assert noisy.low < 1 < noisy.high
