"""`max_wait_s`: the longest time that a row waits for other rows while a core is free."""

import time

import pytest

from encort.runtime.common.errors import InputError
from encort.runtime.engine.planner import TOKENS_PER_RUN
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import NEVER_S, SHORT_S, SUMS, MakeScheduler, expected_sums, sums, unfinished


@pytest.fixture
def patient(make_scheduler: MakeScheduler) -> Scheduler:
    """Return a scheduler whose rows wait for others without end."""
    return make_scheduler(max_wait_s=NEVER_S)


def test_a_row_waits_for_others_until_a_run_is_full(fakes: Fakes, patient: Scheduler) -> None:
    rows = [[token] * (TOKENS_PER_RUN // 4) for token in (5, 6, 7, 8)]
    futures = [patient.submit(batch_of(row), SUMS) for row in rows[:3]]
    assert unfinished(futures, timeout_s=SHORT_S) == futures
    assert fakes.runs == []
    futures.append(patient.submit(batch_of(rows[3]), SUMS))
    assert [sums(future) for future in futures] == [expected_sums(*row) for row in rows]
    assert fakes.runs == [rows]


def test_rows_of_a_full_run_stop_waiting(make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(threads=2, max_wait_s=NEVER_S)
    rows = [[token] * (TOKENS_PER_RUN // 4) for token in (5, 6, 7, 8)]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows]
    try:
        assert unfinished(futures, timeout_s=1) == []
    finally:
        scheduler.close()


def test_a_row_waits_for_others_only_as_long_as_max_wait(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(max_wait_s=SHORT_S)
    start = time.monotonic()
    assert sums(scheduler.submit(batch_of([5, 6]), SUMS)) == expected_sums(5, 6)
    assert time.monotonic() - start >= SHORT_S
    assert fakes.runs == [[[5, 6]]]


def test_a_waiting_row_that_is_cancelled_does_not_hold_up_the_next(fakes: Fakes, patient: Scheduler) -> None:
    assert patient.submit(batch_of([5, 6]), SUMS).cancel()
    full = patient.submit(batch_of([7] * TOKENS_PER_RUN), SUMS)
    assert sums(full) == [7 * TOKENS_PER_RUN, 7]
    assert len(fakes.runs) == 1


def test_close_runs_waiting_rows_at_once(patient: Scheduler) -> None:
    future = patient.submit(batch_of([5, 6]), SUMS)
    patient.close()
    assert future.done()
    assert sums(future) == expected_sums(5, 6)


@pytest.mark.parametrize("max_wait_s", [-0.001, -1, float("nan")])
def test_a_wait_below_zero_is_refused(make_scheduler: MakeScheduler, max_wait_s: float) -> None:
    with pytest.raises(InputError, match="max_wait_ms must be a number of at least 0, got"):
        make_scheduler(max_wait_s=max_wait_s)


def test_an_infinite_wait_is_refused(make_scheduler: MakeScheduler) -> None:
    with pytest.raises(InputError, match="max_wait_ms must be a number of at least 0, got inf"):
        make_scheduler(max_wait_s=float("inf"))
