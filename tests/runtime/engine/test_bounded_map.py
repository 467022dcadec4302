"""`BoundedMap` works on each item once, on a few at a time, and on none after an error, a cancel or an interrupt."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.engine.pending import BoundedMap


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as pool:
        yield pool


class HeldWork:
    """A function that waits until it is released.

    Attributes:
        started: Items that were started.
        release: Lets all calls go on.
    """

    def __init__(self) -> None:
        self.started: list[int] = []
        self.release = threading.Event()
        self._starts = threading.Semaphore(0)

    def __call__(self, item: int) -> None:
        self.started.append(item)
        self._starts.release()
        assert self.release.wait(10)

    def wait(self, count: int) -> None:
        """Wait until this number of items have started."""
        assert all(self._starts.acquire(timeout=10) for _ in range(count))


@pytest.fixture
def held_work() -> Iterator[HeldWork]:
    work = HeldWork()
    yield work
    work.release.set()


@given(st.integers(0, 40), st.integers(1, 6))
def test_each_item_is_worked_on_once(count: int, parallel: int) -> None:
    done: list[int] = []
    with ThreadPoolExecutor(3) as pool:
        BoundedMap(pool.submit, done.append, range(count), parallel=parallel).result()
    assert sorted(done) == list(range(count))


def test_work_goes_on_while_no_caller_waits(threads: ThreadPoolExecutor) -> None:
    done: list[int] = []
    all_done = threading.Event()

    def work(item: int) -> None:
        done.append(item)
        if len(done) == 20:
            all_done.set()

    BoundedMap(threads.submit, work, range(20), parallel=2)
    assert all_done.wait(10)


def test_only_a_few_items_are_in_the_pool_at_the_same_time(threads: ThreadPoolExecutor, held_work: HeldWork) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(9), parallel=2)
    held_work.wait(2)
    threads.submit(int).result(10)  # another caller gets a turn
    assert sorted(held_work.started) == [0, 1]
    held_work.release.set()
    bounded.result()
    assert sorted(held_work.started) == list(range(9))


def test_no_item_starts_after_an_error(threads: ThreadPoolExecutor) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("the fourth")
        done.append(item)

    bounded = BoundedMap(threads.submit, work, range(100), parallel=1)
    with pytest.raises(ValueError, match="the fourth"):
        bounded.result()
    assert done == [0, 1, 2]


def test_no_item_starts_after_a_cancel(threads: ThreadPoolExecutor, held_work: HeldWork) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(100), parallel=2)
    held_work.wait(2)
    running = list(bounded._futures)
    bounded.cancel()
    held_work.release.set()
    wait(running, 10)
    threads.shutdown()
    assert sorted(held_work.started) == [0, 1]


def test_no_item_starts_after_an_interrupt_of_the_waiting_caller(
    threads: ThreadPoolExecutor, held_work: HeldWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(100), parallel=2)
    held_work.wait(2)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    running = list(bounded._futures)
    monkeypatch.setattr(running[0], "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bounded.result()
    held_work.release.set()
    wait(running, 10)
    threads.shutdown()
    assert sorted(held_work.started) == [0, 1]


def test_a_pool_that_was_shut_down_is_an_error_of_the_result() -> None:
    shut_down = threading.Event()
    pool = ThreadPoolExecutor(1)

    def work(_: int) -> None:
        assert shut_down.wait(10)

    bounded = BoundedMap(pool.submit, work, range(3), parallel=1)
    pool.shutdown(wait=False)
    shut_down.set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        bounded.result()
