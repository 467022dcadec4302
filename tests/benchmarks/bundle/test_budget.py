"""`encort bench` keeps to its time, and says what it does."""

import sys

import pytest

from encort.benchmarks.bundle.budget import LINE_SECONDS, TimeBudget
from encort.benchmarks.bundle.workload_plan import FEWEST_ROUNDS, plan_workload


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_parts_share_the_time_by_their_weights(clock: Clock) -> None:
    budget = TimeBudget(100, clock=clock)
    budget.divide({"a": 1, "b": 3})
    assert budget.start("a") == 25
    clock.now = 25
    assert budget.start("b") == 75


@pytest.mark.parametrize(("taken", "share"), [(0, 50.0), (70, 15.0), (130, 0.0)])
def test_the_end_stays_when_a_part_takes_another_time(clock: Clock, taken: float, share: float) -> None:
    budget = TimeBudget(100, clock=clock)
    budget.divide({"a": 8, "b": 1, "c": 1})
    budget.start("a")
    clock.now = taken
    assert budget.start("b") == share


def test_progress_is_one_line_per_part_and_per_ten_seconds(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with TimeBudget(100, clock=clock) as budget:
        budget.show("rounds", "encort fp32, round 1 of 7")
        budget.show("rounds", "encort fp32, round 2 of 7")  # too soon
        clock.now = LINE_SECONDS
        budget.show("rounds", "encort fp32, round 3 of 7")
        clock.now = 110
        budget.show("load")
    written = capsys.readouterr()
    assert written.out == ""
    assert written.err.splitlines() == [
        "encort bench: about 100 s; --budget-s takes another time",
        "encort bench: rounds: encort fp32, round 1 of 7, 100 s left",
        "encort bench: rounds: encort fp32, round 3 of 7, 90 s left",
        "encort bench: load, 10 s over the time",
    ]


def test_a_terminal_has_one_line_that_goes_away(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with TimeBudget(100, clock=clock) as budget:
        capsys.readouterr()
        budget.show("rounds", "round 1")
        budget.show("rounds", "round 2")
    shown = capsys.readouterr().err
    assert shown == "\rrounds: round 1, 100 s left\033[K\rrounds: round 2, 100 s left\033[K\r\033[K"


@pytest.mark.parametrize(("seconds", "rounds", "texts"), [(1000, 7, 100), (70, 5, 100), (50, 3, 100), (25, 3, 50)])
def test_rounds_are_left_out_before_texts(seconds: float, rounds: int, texts: int) -> None:
    plan = plan_workload(range_of_texts(100), text_seconds=0.1, other_passes=2, rounds=None, seconds=seconds)
    assert (plan.rounds, len(plan.texts)) == (rounds, texts)
    assert plan.round_seconds == pytest.approx(texts / 10)
    assert (plan.rounds + 2) * plan.round_seconds <= seconds


def test_rounds_that_the_user_names_are_kept() -> None:
    plan = plan_workload(range_of_texts(100), text_seconds=0.1, other_passes=2, rounds=8, seconds=50)
    assert (plan.rounds, len(plan.texts)) == (8, 50)


def test_one_text_stays_and_texts_keep_their_order() -> None:
    plan = plan_workload(range_of_texts(100), text_seconds=60.0, other_passes=2, rounds=None, seconds=1)
    assert (plan.rounds, len(plan.texts)) == (FEWEST_ROUNDS, 1)
    plan = plan_workload(range_of_texts(100), text_seconds=0.1, other_passes=2, rounds=None, seconds=25)
    assert plan.texts == sorted(set(plan.texts))
    assert plan.texts != range_of_texts(50)


def range_of_texts(count: int) -> list[str]:
    return [f"text {number:03}" for number in range(count)]
