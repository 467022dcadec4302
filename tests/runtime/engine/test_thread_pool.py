"""A pool makes every call once, and ends its threads when it is closed, dropped, or its process ends."""

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.common.errors import InputError
from encort.runtime.engine.future import Future
from encort.runtime.engine.session import Session
from encort.runtime.engine.thread_pool import ThreadPool, check_grant
from tests.runtime.interrupts import finishes, interrupted_calls

TASKS = Path("/proc/self/task")


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(2, name="test")
    yield pool
    pool.close()


def test_calls_have_their_arguments_and_give_results(pool: ThreadPool) -> None:
    futures = [pool.submit(divmod, number, 3) for number in range(20)]
    assert [future.result(10) for future in futures] == [divmod(number, 3) for number in range(20)]
    assert pool.submit(int, "ff", base=16).result(10) == 255


def test_calls_are_made_in_the_order_of_submission() -> None:
    made: list[int] = []
    pool = ThreadPool(1, name="test")
    for number in range(20):
        pool.submit(made.append, number)
    pool.close()
    assert made == list(range(20))


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_goes_to_the_future_and_the_thread_goes_on(error: BaseException) -> None:
    def fail() -> None:
        raise error

    pool = ThreadPool(1, name="test")
    assert pool.submit(fail).exception(10) is error
    assert pool.submit(int).result(10) == 0
    pool.close()


def test_a_cancelled_call_is_not_made() -> None:
    release, made = threading.Event(), list[int]()
    pool = ThreadPool(1, name="test")
    pool.submit(release.wait, 10)
    future = pool.submit(made.append, 1)
    future.cancel()
    release.set()
    pool.close()
    assert made == []


def test_a_closed_pool_has_made_all_calls_and_refuses_others(pool: ThreadPool) -> None:
    futures = [pool.submit(time.sleep, 0.01) for _ in range(10)]
    pool.close()
    assert all(future.done() for future in futures)
    assert not any(thread.is_alive() for thread in pool._threads)
    with pytest.raises(RuntimeError, match="told to end"):
        pool.submit(int)


def test_a_pool_can_be_closed_by_one_of_its_threads(pool: ThreadPool) -> None:
    assert pool.submit(pool.close).exception(10) is None


def test_the_threads_of_a_dropped_pool_end() -> None:
    pool = ThreadPool(2, name="test")
    threads = pool._threads
    pool.submit(int).result(10)
    del pool
    gc.collect()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> set[threading.Thread]:
    """A system that grants two more threads; the fixture is the set of the threads so far."""
    before, start = set(threading.enumerate()), threading.Thread.start

    def start_two(thread: threading.Thread) -> None:
        if len(set(threading.enumerate()) - before) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    return before


def start_pool(threads: int) -> None:
    ThreadPool(threads, name="test").close()


@pytest.mark.parametrize("start", [start_pool, check_grant])
def test_a_system_that_grants_too_few_threads_is_an_error(
    two_threads: set[threading.Thread], start: Callable[[int], None]
) -> None:
    start(2)
    with pytest.raises(InputError, match="only 2 of the 5 threads"):
        start(5)
    assert set(threading.enumerate()) == two_threads


@pytest.mark.skipif(not TASKS.exists(), reason="the system has no list of threads")
def test_the_threads_of_a_check_have_left_the_system() -> None:
    before = len(list(TASKS.iterdir()))
    for _ in range(20):
        check_grant(40)
        assert len(list(TASKS.iterdir())) <= before


@pytest.mark.usefixtures("two_threads")
def test_onnx_runtime_does_not_start_the_threads_of_a_session_if_some_are_not_granted(classifier_bundle: Path) -> None:
    opened = Bundle.open(classifier_bundle)
    variant = opened.manifest.variants[0]
    Session(opened.graph(variant), variant, threads=3)
    with pytest.raises(InputError, match="only 2 of the 3 threads"):
        Session(opened.graph(variant), variant, threads=4)


@pytest.mark.parametrize("call", ["submit", "close"])
def test_a_pool_goes_on_after_an_interrupt(call: str) -> None:
    pools: list[ThreadPool] = []

    def prepare() -> Callable[[], object]:
        pool = ThreadPool(1, name="test")
        pools.append(pool)
        return pool.close if call == "close" else lambda: pool.submit(int)

    broken = {line: list(_problems(pools[-1])) for line in interrupted_calls(prepare)}
    assert len(broken) > 5, "too few lines: the call was not traced"
    assert {line: faults for line, faults in broken.items() if faults} == {}


def _problems(pool: ThreadPool) -> Iterator[str]:
    if not pool._closed:
        future: Future[int] = pool.submit(int)
        if not finishes(future.result):
            yield "a call is not made"
    if not finishes(pool.close):
        yield "close waits for ever"
    for thread in pool._threads:
        thread.join(2)
        if thread.is_alive():
            yield "a thread does not end"


AT_EXIT = """
import sys, threading, time
from encort.runtime.engine.session import Session
from encort.runtime.engine.thread_pool import ThreadPool, check_grant

pool, started = ThreadPool(1, name="test"), threading.Event()

def work():
    started.set()
    time.sleep(0.2)
    print("finished", flush=True)

pool.submit(work)
pool.submit(print, "not begun")
started.wait()
"""


def test_the_process_ends_after_the_call_that_runs() -> None:
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, timeout=60, check=False, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "finished\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_child_ends_at_once() -> None:
    code = AT_EXIT + (
        "import os, signal\n"
        "if os.fork() == 0:\n    signal.alarm(5)\n    sys.exit(7)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False, text=True)
    assert (done.returncode, done.stderr) == (7, "")
