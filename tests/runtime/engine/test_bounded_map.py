"""`BoundedMap` works on each item once, on a few at a time, and on none after an error, a cancel or an interrupt."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.engine.pending import BoundedMap
from encort.runtime.engine.thread_pool import ThreadPool


@pytest.fixture
def threads() -> Iterator[ThreadPool]:
    pool = ThreadPool(4, name="test")
    yield pool
    pool.close()


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
def test_each_item_is_worked_on_once(count: int, in_flight: int) -> None:
    done: list[int] = []
    pool = ThreadPool(3, name="test")
    BoundedMap(pool.submit, done.append, range(count), in_flight=in_flight).result()
    assert sorted(done) == list(range(count))


def test_work_goes_on_while_no_caller_waits(threads: ThreadPool) -> None:
    done: list[int] = []
    all_done = threading.Event()

    def work(item: int) -> None:
        done.append(item)
        if len(done) == 20:
            all_done.set()

    BoundedMap(threads.submit, work, range(20), in_flight=2)
    assert all_done.wait(10)


def test_only_a_few_items_are_in_the_pool_at_the_same_time(threads: ThreadPool, held_work: HeldWork) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(9), in_flight=2)
    held_work.wait(2)
    threads.submit(int).result(10)  # another caller gets a turn
    assert sorted(held_work.started) == [0, 1]
    held_work.release.set()
    bounded.result()
    assert sorted(held_work.started) == list(range(9))


def test_no_item_starts_after_an_error(threads: ThreadPool) -> None:
    done: list[int] = []

    def work(item: int) -> None:
        if item == 3:
            raise ValueError("the fourth")
        done.append(item)

    bounded = BoundedMap(threads.submit, work, range(100), in_flight=1)
    with pytest.raises(ValueError, match="the fourth"):
        bounded.result()
    assert done == [0, 1, 2]


def test_no_item_starts_after_a_cancel(threads: ThreadPool, held_work: HeldWork) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(100), in_flight=2)
    held_work.wait(2)
    bounded.cancel()
    held_work.release.set()
    threads.close()
    assert sorted(held_work.started) == [0, 1]


def test_no_item_starts_after_an_interrupt_of_the_waiting_caller(
    threads: ThreadPool, held_work: HeldWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(100), in_flight=2)
    held_work.wait(2)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bounded._futures[0], "result", interrupt)
    with pytest.raises(KeyboardInterrupt):
        bounded.result()
    held_work.release.set()
    threads.close()
    assert sorted(held_work.started) == [0, 1]


def test_a_closed_pool_is_an_error_of_the_result(threads: ThreadPool, held_work: HeldWork) -> None:
    bounded = BoundedMap(threads.submit, held_work, range(3), in_flight=1)
    held_work.wait(1)
    closing = threading.Thread(target=threads.close)
    closing.start()
    while not threads._closed:
        time.sleep(0.001)
    held_work.release.set()
    with pytest.raises(RuntimeError, match="told to end"):
        bounded.result()
    closing.join(10)
