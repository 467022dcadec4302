"""Cancelled and expired texts do not run, and do not harm other callers of the same text."""

import time

import pytest

from encort.runtime.common.errors import DeadlineError
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import NEVER_S, SUMS, expected_sums, sums


def test_a_running_text_may_be_cancelled(fakes: Fakes, scheduler: Scheduler) -> None:
    fakes.hold(5)
    future = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    assert future.cancel()
    fakes.release()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == expected_sums(6)
    assert scheduler._engine.recorder.stats().expired == 0


def test_a_cancelled_text_may_be_submitted_again(fakes: Fakes, busy: Scheduler) -> None:
    assert busy.submit(batch_of([5, 6]), SUMS).cancel()
    again = busy.submit(batch_of([5, 6]), SUMS)
    fakes.release()
    assert sums(again) == expected_sums(5, 6)
    assert fakes.runs[1:] == [[[5, 6]]]


def test_a_text_does_not_run_after_its_deadline(fakes: Fakes, busy: Scheduler) -> None:
    late = busy.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic())
    timely = busy.submit(batch_of([7, 8]), SUMS, deadline=time.monotonic() + NEVER_S)
    fakes.release()
    with pytest.raises(DeadlineError, match="deadline passed"):
        late.result(10)
    assert sums(timely) == expected_sums(7, 8)
    assert fakes.runs[1:] == [[[7, 8]]]
    stats = busy._engine.recorder.stats()
    assert (stats.expired, stats.queued_tokens) == (1, 0)


def test_a_text_runs_if_one_of_its_callers_is_within_the_deadline(fakes: Fakes, busy: Scheduler) -> None:
    late = busy.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic())
    timely = busy.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic() + NEVER_S)
    fakes.release()
    assert sums(timely) == expected_sums(5, 6)
    assert late.done()
    assert fakes.runs[1:] == [[[5, 6]]]


@pytest.mark.parametrize("cancelled", [0, 1])
def test_one_of_two_callers_gets_the_result_if_the_other_cancels(fakes: Fakes, busy: Scheduler, cancelled: int) -> None:
    futures = [busy.submit(batch_of([5, 6]), SUMS) for _ in range(2)]
    assert futures.pop(cancelled).cancel()
    assert busy._engine.recorder.stats().queued_tokens == 2
    fakes.release()
    assert sums(futures[0]) == expected_sums(5, 6)
    assert fakes.runs[1:] == [[[5, 6]]]


def test_a_text_does_not_run_if_all_callers_cancel(fakes: Fakes, busy: Scheduler) -> None:
    futures = [busy.submit(batch_of([5, 6]), SUMS) for _ in range(2)]
    assert all(future.cancel() for future in futures)
    other = busy.submit(batch_of([7]), SUMS)
    fakes.release()
    assert sums(other) == expected_sums(7)
    assert fakes.runs[1:] == [[[7]]]


def test_an_unwanted_row_is_dropped_out_of_a_run_of_mixed_lengths(fakes: Fakes, busy_ragged: Scheduler) -> None:
    futures = [busy_ragged.submit(batch_of(row), SUMS) for row in ([5, 6], [7], [8, 9, 10])]
    late = busy_ragged.submit(batch_of([11, 12]), SUMS, deadline=time.monotonic())
    assert futures.pop(1).cancel()
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(5, 6), expected_sums(8, 9, 10)]
    assert isinstance(late.exception(10), DeadlineError)
    assert fakes.runs[1:] == [[[5, 6, 0], [8, 9, 10]]]
    assert busy_ragged._engine.recorder.stats().queued_tokens == 0
