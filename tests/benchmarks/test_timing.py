import random

import pytest

from encort.benchmarks.timing import change, in_turn, of_rounds, speed


def test_every_round_has_all_ways_in_an_order_of_its_own():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    found = in_turn(ways, rounds=20)
    rounds = [calls[start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert found["b"] == [3 * number + each.index("b") + 1 for number, each in enumerate(rounds)]


def test_speed_is_the_median_of_the_ratios_of_rounds():
    # A machine that is three times slower in two rounds: ratios do not see it, medians of seconds would.
    assert speed([1, 3, 3, 1], [2, 6, 6, 2]).median == pytest.approx(2)
    found = speed([1.0, 3.0, 1.0], [2.0, 6.0, 8.0])
    assert (found.median, found.low, found.high) == (2, 2, 8)


@pytest.mark.parametrize(("count", "outside"), [(1, 0), (5, 0), (6, 0), (8, 0), (9, 1), (11, 1), (12, 2), (20, 5)])
def test_the_interval_is_between_the_values_that_tables_of_the_sign_test_have(count, outside):
    found = of_rounds([*range(count)])
    assert (found.low, found.high) == (outside, count - 1 - outside)


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    draw, misses = random.Random(1), 0
    for _ in range(1000):
        found = of_rounds([draw.expovariate(1.0) for _ in range(9)])
        misses += not found.low <= 0.6931 <= found.high
    assert misses < 70


def test_change_of_runs_of_their_own():
    assert change([1.0, 1.0, 1.0], [1.2, 1.2, 1.2]).low == pytest.approx(1.2)
    noisy = change([1.0, 1.5, 1.0, 1.5], [1.2, 1.1, 1.3, 1.4])
    assert noisy.low < 1 < noisy.high
