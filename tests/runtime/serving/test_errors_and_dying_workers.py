"""Errors of a run, workers that die: no caller is left waiting."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from encort.runtime.common.errors import ModelClosedError, WorkerDiedError
from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SHORT_S, SUMS, MakeScheduler, expected_sums, sums


def test_an_error_goes_to_the_callers_of_its_run_only(fakes: Fakes, busy: Scheduler) -> None:
    fakes.errors[7] = ValueError("a bad id")
    failing = [busy.submit(batch_of(row), SUMS) for row in ([7, 8], [9, 10], [7, 8])]
    successful = busy.submit(batch_of([5, 6, 4]), SUMS)
    fakes.release()
    for future in failing:
        assert future.exception(10) is fakes.errors[7]
    assert sums(successful) == expected_sums(5, 6, 4)
    assert sums(busy.submit(batch_of([9, 10]), SUMS)) == expected_sums(9, 10)
    assert busy._engine.recorder.stats().failures == 1


def test_a_worker_that_dies_fails_every_queued_text(fakes: Fakes, busy: Scheduler) -> None:
    fakes.errors[7] = SystemExit(3)
    futures = [busy.submit(batch_of(row), SUMS) for row in ([7, 8], [9, 10], [2, 3, 4])]
    fakes.release()
    for future in futures:
        error = future.exception(10)
        assert isinstance(error, WorkerDiedError)
        assert "SystemExit(3)" in str(error)
        assert error.__cause__ is fakes.errors[7]
    assert [[2, 3, 4]] not in fakes.runs
    assert busy._engine.recorder.stats().queued_tokens == 0
    assert sums(busy.submit(batch_of([2, 3, 4]), SUMS)) == expected_sums(2, 3, 4)
    busy.close()


def test_a_worker_that_dies_fails_texts_that_run_in_other_workers_at_once(
    fakes: Fakes, make_scheduler: MakeScheduler
) -> None:
    scheduler = make_scheduler(threads=2)
    fakes.hold(5)
    fakes.errors[7] = SystemExit()
    running = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    dying = scheduler.submit(batch_of([7]), SUMS)
    assert isinstance(dying.exception(10), WorkerDiedError)
    assert isinstance(running.exception(10), WorkerDiedError)
    fakes.release()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == expected_sums(6)


@pytest.fixture
def resubmitted(fakes: Fakes, make_scheduler: MakeScheduler) -> tuple[Scheduler, Future[Arrays]]:
    """Return a scheduler that lost a worker while `[5]` ran, and the future of `[5]` that was submitted again.

    The first run of `[5]` is over. The second waits for `fakes.release()`.
    """
    scheduler = make_scheduler(threads=2)
    first_run, second_run = threading.Event(), threading.Event()
    fakes.errors[7] = SystemExit()
    fakes.holds[5] = first_run
    scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    assert isinstance(scheduler.submit(batch_of([7]), SUMS).exception(10), WorkerDiedError)
    fakes.holds[5] = second_run
    again = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=3)
    first_run.set()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == expected_sums(6)  # by the thread of the first run
    return scheduler, again


def test_close_waits_for_a_text_that_was_submitted_again(
    fakes: Fakes, resubmitted: tuple[Scheduler, Future[Arrays]]
) -> None:
    scheduler, again = resubmitted
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler.close)
        try:
            with pytest.raises(TimeoutError):
                closing.result(SHORT_S)
        finally:
            fakes.release()
        closing.result(10)
    assert sums(again) == expected_sums(5)


def test_a_text_that_was_submitted_again_is_shared(fakes: Fakes, resubmitted: tuple[Scheduler, Future[Arrays]]) -> None:
    scheduler, again = resubmitted
    third = scheduler.submit(batch_of([5]), SUMS)
    fakes.release()
    assert sums(again) == sums(third) == expected_sums(5)
    assert fakes.runs.count([[5]]) == 2


def refuse(*_: Any) -> None:
    raise ModelClosedError("this model was closed; load the bundle again")


def test_a_worker_that_still_runs_takes_the_text_that_no_new_worker_can_take(
    fakes: Fakes, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(threads=2)
    fakes.hold(5)
    running = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    monkeypatch.setattr(scheduler._engine, "submit", refuse)
    queued = scheduler.submit(batch_of([6, 6]), SUMS)
    fakes.release()
    assert (sums(running), sums(queued)) == (expected_sums(5), expected_sums(6, 6))
    scheduler.close()


def test_every_queued_text_fails_if_no_worker_can_start(
    make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(threads=1)
    others: list[Future[Arrays]] = []

    def submit_another_and_refuse(*_: Any) -> None:
        if not others:
            others.append(scheduler.submit(batch_of([6, 6]), SUMS))
        refuse()

    monkeypatch.setattr(scheduler._engine, "submit", submit_another_and_refuse)
    first = scheduler.submit(batch_of([5]), SUMS)
    assert [type(future.exception(10)) for future in (first, *others)] == [ModelClosedError] * 2
    scheduler.close()
