"""The windows of a long text take turns with the texts of other callers."""

import time

import pytest

from encort.runtime.common.errors import DeadlineError
from encort.runtime.serving import row_queue
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.text.token_batch import TokenBatch
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums

SIZE = 200
"""Tokens of a window: too many for two windows to share a run."""


def long_batch(*first_ids: int) -> TokenBatch:
    """Return a batch of one window per id."""
    return batch_of(*([first, *[1000] * (SIZE - 1)] for first in first_ids))


def first_ids(fakes: Fakes) -> list[int]:
    """Return the first id of every run."""
    return [run[0][0] for run in fakes.runs]


def test_a_short_text_does_not_wait_for_the_windows_of_a_long_one(fakes: Fakes, busy: Scheduler) -> None:
    long = busy.submit(long_batch(11, 12, 13, 14, 15), SUMS)
    short = busy.submit(batch_of([7, 7]), SUMS)
    fakes.release()
    assert sums(short) == expected_sums(7, 7)
    assert long.result(10)[0][:, 1].tolist() == [11, 12, 13, 14, 15]
    assert first_ids(fakes) == [1, 11, 7, 12, 13, 14, 15]


def test_two_long_texts_take_turns(fakes: Fakes, busy: Scheduler) -> None:
    futures = [busy.submit(long_batch(*ids), SUMS) for ids in ((11, 12, 13), (21, 22, 23))]
    fakes.release()
    assert [future.result(10)[0][:, 1].tolist() for future in futures] == [[11, 12, 13], [21, 22, 23]]
    assert first_ids(fakes) == [1, 11, 21, 12, 22, 13, 23]


@pytest.mark.parametrize(("has_others", "most"), [(True, 2), (False, 3)])
def test_a_long_text_leaves_one_worker_to_others(
    fakes: Fakes, make_scheduler: MakeScheduler, most: int, *, has_others: bool
) -> None:
    scheduler = make_scheduler(threads=3)
    if has_others:
        scheduler.submit(batch_of([7]), SUMS).result(10)
    before = len(fakes.runs)
    fakes.hold(1000)
    future = scheduler.submit(long_batch(*range(11, 19)), SUMS)
    fakes.wait(runs=before + most)
    time.sleep(0.05)
    assert len(fakes.runs) == before + most
    if has_others:
        assert sums(scheduler.submit(batch_of([8]), SUMS)) == expected_sums(8)
    fakes.release()
    assert future.result(10)[0][:, 1].tolist() == list(range(11, 19))


def test_a_long_text_gets_all_workers_when_the_others_are_gone(
    fakes: Fakes, make_scheduler: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler(threads=2)
    scheduler.submit(batch_of([7]), SUMS).result(10)
    for first in (11, 12, 13):
        fakes.hold(first)
    future = scheduler.submit(long_batch(*range(11, 19)), SUMS)
    fakes.wait(runs=2)
    monkeypatch.setattr(row_queue, "_RECENTLY_S", 0.0)
    fakes.holds[11].set()
    fakes.wait(runs=4)
    assert first_ids(fakes) == [7, 11, 12, 13]
    fakes.release()
    assert future.result(10)[0][:, 1].tolist() == list(range(11, 19))


def test_a_cancelled_long_text_leaves_nothing(fakes: Fakes, busy: Scheduler) -> None:
    future = busy.submit(long_batch(*range(11, 31)), SUMS)
    assert busy._engine.recorder.stats().queued_tokens == 20 * SIZE
    future.cancel()
    assert busy._engine.recorder.stats().queued_tokens == 0
    fakes.release()
    busy.close()
    assert first_ids(fakes) == [1]


def test_a_long_text_past_its_deadline_leaves_nothing(fakes: Fakes, busy: Scheduler) -> None:
    future = busy.submit(long_batch(*range(11, 31)), SUMS, deadline=time.monotonic())
    fakes.release()
    assert isinstance(future.exception(10), DeadlineError)
    busy.close()
    assert first_ids(fakes) == [1]
    assert busy._engine.recorder.stats().queued_tokens == 0


@pytest.mark.parametrize("cancelled", [0, 1])
def test_a_window_that_two_long_texts_share_is_run_although_one_is_cancelled(
    fakes: Fakes, busy: Scheduler, cancelled: int
) -> None:
    texts = [(11, 12, 13, 14), (14, 13, 12, 22)]
    futures = [busy.submit(long_batch(*ids), SUMS) for ids in texts]
    futures[cancelled].cancel()
    fakes.release()
    assert futures[1 - cancelled].result(10)[0][:, 1].tolist() == list(texts[1 - cancelled])
    busy.close()
    assert busy._engine.recorder.stats().queued_tokens == 0


def test_a_failed_window_takes_those_that_were_held_back_with_it(fakes: Fakes, busy: Scheduler) -> None:
    fakes.errors[11] = ValueError("a bad id")
    future = busy.submit(long_batch(*range(11, 31)), SUMS)
    fakes.release()
    assert future.exception(10) is fakes.errors[11]
    busy.close()
    assert first_ids(fakes) == [1, 11]


def test_windows_come_back_to_a_text_whose_first_windows_are_running(fakes: Fakes, busy: Scheduler) -> None:
    fakes.hold(11)
    first = busy.submit(long_batch(11, 12), SUMS)
    fakes.holds[1].set()
    fakes.wait(runs=2)
    second = busy.submit(long_batch(11, 31, 32, 33), SUMS)
    fakes.release()
    assert second.result(10)[0][:, 1].tolist() == [11, 31, 32, 33]
    assert first.result(10)[0][:, 1].tolist() == [11, 12]
