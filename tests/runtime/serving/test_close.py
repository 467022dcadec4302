"""Closing a scheduler or its engine: accepted texts are run, new texts are refused."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from encort.runtime.common.errors import ModelClosedError
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, expected_sums, sums


def refuses_new_texts(scheduler: Scheduler) -> bool:
    """Wait until the scheduler takes no more texts."""
    for _ in range(2000):
        try:
            scheduler.submit(batch_of([1]), SUMS).cancel()
        except ModelClosedError:
            return True
        time.sleep(0.005)
    return False


def test_close_runs_accepted_texts_and_refuses_new_texts(fakes: Fakes, scheduler: Scheduler) -> None:
    fakes.hold(1)
    futures = [scheduler.submit(batch_of(row), SUMS) for row in ([1], [5, 6], [7, 8, 9])]
    fakes.wait(runs=1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler.close)
        assert refuses_new_texts(scheduler)
        with pytest.raises(ModelClosedError, match=r"begin another with model.serving\(\)"):
            scheduler.submit(batch_of([4]), SUMS)
        assert not closing.done()
        fakes.release()
        closing.result(10)
    assert all(future.done() for future in futures)
    assert [sums(future)[0] for future in futures] == [1, 11, 24]
    scheduler.close()


def test_the_engine_still_runs_after_a_scheduler_was_closed(scheduler: Scheduler) -> None:
    scheduler.close()
    another = Scheduler(scheduler._engine, max_wait_s=0, queue_tokens=10)
    assert sums(another.submit(batch_of([5]), SUMS)) == expected_sums(5)


def test_closing_the_engine_runs_accepted_texts(fakes: Fakes, scheduler: Scheduler) -> None:
    fakes.hold(1)
    futures = [scheduler.submit(batch_of(row), SUMS) for row in ([1], [5, 6], [7, 8, 9])]
    fakes.wait(runs=1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler._engine.close)
        assert refuses_new_texts(scheduler)
        fakes.release()
        closing.result(10)
    assert [sums(future)[0] for future in futures] == [1, 11, 24]
    with pytest.raises(ModelClosedError, match="load the bundle again"):
        scheduler.submit(batch_of([5, 6]), SUMS)
    scheduler.close()
