"""Pieces of work over threads: each once, a few at a time, and none after an error, a cancel or an interrupt."""

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.engine.pending import BoundedMap


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


class Held:
    """Work that waits until it is let go; knows what was begun."""

    def __init__(self):
        self.begun, self.free, self._each = [], threading.Event(), threading.Semaphore(0)

    def __call__(self, item):
        self.begun.append(item)
        self._each.release()
        assert self.free.wait(10)

    def wait(self, count):
        """Until so many have begun."""
        assert all(self._each.acquire(timeout=10) for _ in range(count))


@pytest.fixture
def work():
    held = Held()
    yield held
    held.free.set()


@given(st.integers(0, 40), st.integers(1, 6))
def test_each_item_is_worked_on_once(count, parallel):
    done = []
    with ThreadPoolExecutor(3) as pool:
        BoundedMap(pool.submit, done.append, range(count), parallel=parallel).result()
    assert sorted(done) == list(range(count))


def test_it_goes_on_while_nobody_waits(threads):
    done, all_done = [], threading.Event()

    def work(item):
        done.append(item)
        if len(done) == 20:
            all_done.set()

    BoundedMap(threads.submit, work, range(20), parallel=2)
    assert all_done.wait(10)


def test_only_a_few_are_futures_at_the_same_time(threads, work):
    spread = BoundedMap(threads.submit, work, range(9), parallel=2)
    work.wait(2)
    threads.submit(int).result(10)  # another caller gets a turn
    assert sorted(work.begun) == [0, 1]
    work.free.set()
    spread.result()
    assert sorted(work.begun) == list(range(9))


def test_after_an_error_no_more_is_futures(threads):
    done = []

    def work(item):
        if item == 3:
            raise ValueError("the fourth")
        done.append(item)

    spread = BoundedMap(threads.submit, work, range(100), parallel=1)
    with pytest.raises(ValueError, match="the fourth"):
        spread.result()
    assert done == [0, 1, 2]


def test_after_a_cancel_no_more_is_futures(threads, work):
    spread = BoundedMap(threads.submit, work, range(100), parallel=2)
    work.wait(2)
    running = list(spread._futures)
    spread.cancel()
    work.free.set()
    wait(running, 10)
    threads.shutdown()
    assert sorted(work.begun) == [0, 1]


def test_an_interrupt_while_waiting_does_not_wait_for_the_rest(threads, work, monkeypatch):
    spread = BoundedMap(threads.submit, work, range(100), parallel=2)
    work.wait(2)

    def interrupted(*_):
        raise KeyboardInterrupt

    running = list(spread._futures)
    monkeypatch.setattr(running[0], "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spread.result()
    work.free.set()
    wait(running, 10)
    threads.shutdown()
    assert sorted(work.begun) == [0, 1]


def test_threads_that_take_no_more_are_an_error_of_the_result():
    closed = threading.Event()
    pool = ThreadPoolExecutor(1)

    def work(_):
        assert closed.wait(10)

    spread = BoundedMap(pool.submit, work, range(3), parallel=1)
    pool.shutdown(wait=False)
    closed.set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        spread.result()
