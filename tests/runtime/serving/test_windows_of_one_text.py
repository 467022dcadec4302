"""A text of several windows: one row per window, one result."""

import time

import numpy as np

from encort.runtime.common.errors import DeadlineError
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums


def test_the_windows_of_a_text_make_one_result_in_order(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(threads=2)
    fakes.hold(5)
    batch = batch_of([5, 6, 7], [8, 9, 10], [11], [12, 13])
    future = scheduler.submit(batch, ["states", "sums"])
    fakes.wait(runs=2)
    assert not future.done()
    fakes.release()
    arrays = future.result(10)
    for array, expected in zip(arrays, scheduler._engine.run(batch, ["states", "sums"]), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_two_equal_windows_of_a_text_run_once(fakes: Fakes, busy: Scheduler) -> None:
    future = busy.submit(batch_of([5, 6], [7], [5, 6]), SUMS)
    fakes.release()
    assert future.result(10)[0].tolist() == [expected_sums(5, 6), expected_sums(7), expected_sums(5, 6)]
    assert sorted(fakes.runs[1:]) == [[[5, 6]], [[7]]]


def test_windows_share_runs_with_other_texts(fakes: Fakes, busy: Scheduler) -> None:
    windows = busy.submit(batch_of([5, 6], [7, 8]), SUMS)
    text = busy.submit(batch_of([7, 8]), SUMS)
    other = busy.submit(batch_of([9, 10]), SUMS)
    fakes.release()
    assert windows.result(10)[0].tolist() == [expected_sums(5, 6), expected_sums(7, 8)]
    assert (sums(text), sums(other)) == (expected_sums(7, 8), expected_sums(9, 10))
    assert fakes.runs[1:] == [[[5, 6], [7, 8], [9, 10]]]


def test_an_error_in_one_window_takes_the_others_out_of_the_queue(fakes: Fakes, busy: Scheduler) -> None:
    fakes.errors[7] = ValueError("a bad id")
    future = busy.submit(batch_of([7], [5, 6], [8, 9, 10]), SUMS)
    shared = busy.submit(batch_of([8, 9, 10]), SUMS)
    fakes.release()
    assert future.exception(10) is fakes.errors[7]
    assert sums(shared) == expected_sums(8, 9, 10)
    assert fakes.runs[1:] == [[[7]], [[8, 9, 10]]]
    assert busy._engine.recorder.stats().queued_tokens == 0


def test_windows_do_not_run_after_their_deadline(fakes: Fakes, busy: Scheduler) -> None:
    late = busy.submit(batch_of([5, 6], [7, 8], [9], [5, 6]), SUMS, deadline=time.monotonic())
    timely = busy.submit(batch_of([4, 4]), SUMS)
    fakes.release()
    assert isinstance(late.exception(10), DeadlineError)
    assert sums(timely) == expected_sums(4, 4)
    assert fakes.runs[1:] == [[[4, 4]]]
    assert busy._engine.recorder.stats().queued_tokens == 0


def test_windows_that_cannot_be_stacked_are_an_error_of_their_caller(scheduler: Scheduler) -> None:
    future = scheduler.submit(batch_of([5], [6, 7]), ["odd"])
    assert future.exception(1) is not None
