"""A forked child ends at once, and encort works there or says why not: nothing waits for threads of the parent."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from encort.runtime.engine.engine import Engine
from encort.runtime.engine.future import Future
from encort.runtime.engine.pending import BoundedMap
from encort.runtime.engine.stats import Recorder
from encort.runtime.engine.thread_pool import ThreadPool
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import MakeEngine
from tests.runtime.forking import CHILD_S, error_in_child, leave, refused

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine(threads=2)


@contextmanager
def held(lock: threading.Lock) -> Iterator[None]:
    """Hold a lock in another thread."""
    is_held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            is_held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_every_child_of_a_process_with_a_model_ends(classifier_bundle: Path, state: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime.forking", classifier_bundle, state],
        capture_output=True,
        text=True,
        timeout=10 * CHILD_S,
        cwd=ROOT,
        check=False,
    )
    children = ["end", "run", "stats", "stream", "close the stream", "close", "load"]
    assert done.stdout.splitlines() == [f"{child}: ends" for child in children], done.stderr
    assert done.returncode == 0


def test_a_child_does_not_wait_for_a_lock_of_another_thread(engine: Engine) -> None:
    scheduler = Scheduler(engine, max_wait_s=0, queue_tokens=100)
    items = BoundedMap(engine.submit, print, [], in_flight=1)
    pool = ThreadPool(1, name="test")
    recorder: Recorder = engine.recorder
    cases: list[tuple[threading.Lock, Callable[[], object]]] = [
        (recorder._lock, recorder.stats),
        (items._lock, items.cancel),
        (scheduler._lock, lambda: scheduler._remove_unwanted([])),
        (pool._lock, pool.close),
        (engine._lock, engine.close),
        (engine._opening, engine.close),
    ]
    for lock, call in cases:
        with held(lock):
            assert error_in_child(call, end_child=leave) == ""
    pool.close()


def test_a_child_does_not_wait_for_a_result_of_another_thread() -> None:
    future = Future[int]()
    assert error_in_child(lambda: refused(future.result), end_child=leave) == ""
    assert error_in_child(lambda: refused(future.exception), end_child=leave) == ""


def test_a_child_has_the_results_that_were_there_before_the_fork() -> None:
    future = Future[int]()
    future.set_result(3)
    assert "division" in error_in_child(lambda: 1 / (future.result() - 3), end_child=leave)
