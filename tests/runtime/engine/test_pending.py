"""`prefetch` gives results in order, starts one item ahead, and raises an error after the results before it."""

from collections.abc import Callable, Iterator

import pytest

from encort.runtime.common.errors import InputError
from encort.runtime.engine.pending import prefetch


class FakeWork:
    """Pending work whose result and cancellation are functions."""

    def __init__(self, result: Callable[[], float], cancel: Callable[[], object] = lambda: None) -> None:
        self._result, self._cancel = result, cancel

    def result(self) -> float:
        return self._result()

    def cancel(self) -> None:
        self._cancel()


Start = Callable[[int], FakeWork]


@pytest.fixture
def calls() -> list[str]:
    """Return a list of what was started, awaited and cancelled."""
    return []


@pytest.fixture
def start(calls: list[str]) -> Start:
    """Return a function that starts the work on a number. The result is ten times the number."""

    def start(number: int) -> FakeWork:
        def result() -> int:
            calls.append(f"result {number}")
            return 10 * number

        calls.append(f"start {number}")
        return FakeWork(result, cancel=lambda: calls.append(f"cancel {number}"))

    return start


@pytest.mark.parametrize("count", range(4))
def test_results_come_in_order(start: Start, count: int) -> None:
    assert list(prefetch(start, range(count))) == [10 * number for number in range(count)]


def test_only_the_next_item_is_started_before_a_result(start: Start, calls: list[str]) -> None:
    results = prefetch(start, range(9))
    assert calls == []
    assert next(results) == 0
    assert calls == ["start 0", "start 1", "result 0"]
    assert next(results) == 10
    assert calls[3:] == ["start 2", "result 1"]


def test_closing_the_iterator_early_cancels_pending_work(start: Start, calls: list[str]) -> None:
    results = prefetch(start, range(9))
    next(results)
    results.close()  # type: ignore[attr-defined]  # a generator
    assert "cancel 1" in calls
    assert "start 2" not in calls


def numbers_then_an_error() -> Iterator[int]:
    yield from (0, 1)
    raise InputError("the third is wrong")


def start_if_small(number: int) -> FakeWork:
    if number > 1:
        raise InputError("the third is wrong")
    return FakeWork(lambda: number)


def test_an_error_of_the_items_comes_after_the_results_before_it(start: Start) -> None:
    results = prefetch(start, numbers_then_an_error())
    assert [next(results), next(results)] == [0, 10]
    with pytest.raises(InputError, match="third"):
        next(results)


def test_an_error_at_the_start_of_an_item_comes_after_the_results_before_it() -> None:
    results = prefetch(start_if_small, range(9))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(InputError, match="third"):
        next(results)


def test_an_error_of_a_result_comes_in_its_place_and_the_next_item_is_cancelled() -> None:
    cancelled: list[int] = []

    def start(number: int) -> FakeWork:
        return FakeWork(lambda: 1 / number, cancel=lambda: cancelled.append(number))

    results = prefetch(start, [2, 0, 1, 4])
    assert next(results) == 0.5
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert cancelled == [0, 1]
    assert list(results) == []
