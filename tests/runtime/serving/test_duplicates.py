"""A text that is queued or running already is not run a second time."""

import dataclasses

import numpy as np

from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, expected_sums, sums, unfinished


def test_a_text_that_is_queued_runs_once_for_all_its_callers(fakes: Fakes, busy: Scheduler) -> None:
    futures = [busy.submit(batch_of([5, 6]), SUMS) for _ in range(3)]
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(5, 6)] * 3
    assert fakes.runs[1:] == [[[5, 6]]]
    stats = busy._engine.recorder.stats()
    assert (stats.shared, stats.texts) == (2, 2)


def test_a_text_that_is_running_does_not_run_again(fakes: Fakes, scheduler: Scheduler) -> None:
    fakes.hold(5)
    first = scheduler.submit(batch_of([5, 6]), SUMS)
    fakes.wait(runs=1)
    second = scheduler.submit(batch_of([5, 6]), SUMS)
    fakes.release()
    assert sums(first) == sums(second) == expected_sums(5, 6)
    assert len(fakes.runs) == 1
    assert scheduler._engine.recorder.stats().queued_tokens == 0


def test_callers_of_the_same_text_get_separate_arrays(fakes: Fakes, busy: Scheduler) -> None:
    first, second = (busy.submit(batch_of([5, 6]), ["states"]) for _ in range(2))
    fakes.release()
    first.result(10)[0][:] = -1
    assert second.result(10)[0].tolist() == [[5, 10, 15], [6, 12, 18]]


def test_a_text_that_has_been_run_runs_again(fakes: Fakes, scheduler: Scheduler) -> None:
    for _ in range(2):
        assert sums(scheduler.submit(batch_of([5, 6]), SUMS)) == expected_sums(5, 6)
    assert len(fakes.runs) == 2


def test_other_type_ids_make_another_text(fakes: Fakes, busy: Scheduler) -> None:
    single = batch_of([5, 6])
    pair = dataclasses.replace(single, type_ids=np.array([0, 1]))
    futures = [busy.submit(batch, SUMS) for batch in (single, pair)]
    fakes.release()
    assert unfinished(futures) == []
    assert fakes.runs[1:] == [[[5, 6], [5, 6]]]
