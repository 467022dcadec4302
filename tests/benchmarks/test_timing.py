import random

import pytest

from encort.benchmarks.timing import change, in_turn, speed


def test_every_round_has_all_ways_in_an_order_of_its_own():
    calls = []
    ways = {name: lambda name=name: calls.append(name) or len(calls) for name in "abc"}
    found = in_turn(ways, rounds=20, quiet=True)
    rounds = [calls[start : start + 3] for start in range(0, 60, 3)]
    assert all(sorted(each) == ["a", "b", "c"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert [found["b"][number] for number in range(20)] == [
        3 * n + each.index("b") + 1 for n, each in enumerate(rounds)
    ]


def test_speed_is_the_median_of_the_ratios_of_rounds():
    # A machine that is three times slower in two rounds: ratios do not see it, medians of seconds would.
    assert speed([1, 3, 3, 1], [2, 6, 6, 2]).median == pytest.approx(2)
    ours, theirs = [1.0, 3.0, 1.0], [2.0, 6.0, 8.0]
    found = speed(ours, theirs)
    assert found.median == 2
    assert found.low == 2
    assert found.high == 8


def test_the_interval_holds_what_is_measured_and_narrows_with_rounds():
    draw = random.Random(1)
    ours = [1 + draw.random() / 10 for _ in range(200)]
    theirs = [2 + draw.random() / 10 for _ in range(200)]
    few, many = speed(ours[:5], theirs[:5]), speed(ours, theirs)
    for found in (few, many):
        assert found.low <= found.median <= found.high
        assert found.low < 1.95 < found.high or found.low > 1.8
    assert many.high - many.low < few.high - few.low


def test_change_of_runs_of_their_own():
    assert change([1.0, 1.0, 1.0], [1.2, 1.2, 1.2]).low == pytest.approx(1.2)
    noisy = change([1.0, 1.5, 1.0, 1.5], [1.2, 1.1, 1.3, 1.4])
    assert noisy.low < 1 < noisy.high
