"""The order of the rows, and the rows that share a run."""

import numpy as np

from encort.runtime.engine.planner import TOKENS_PER_RUN
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums, unfinished


def test_one_text_gives_what_the_engine_gives(scheduler: Scheduler) -> None:
    batch = batch_of([5, 6, 7])
    arrays = scheduler.submit(batch, ["states", "sums"]).result(10)
    for array, expected in zip(arrays, scheduler._engine.run(batch, ["states", "sums"]), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.float32


def test_the_oldest_row_runs_first_whatever_its_length(fakes: Fakes, busy: Scheduler) -> None:
    rows = [[5, 6], [7, 8, 9], [4], [3] * 9, [2] * 6]
    futures = [busy.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(*row) for row in rows]
    assert fakes.runs[1:] == [[row] for row in rows]


def test_rows_of_equal_length_share_the_run_of_the_oldest_row(fakes: Fakes, busy: Scheduler) -> None:
    rows = [[5, 6], [7, 8, 9], [10, 11], [12, 13, 14], [15, 16]]
    futures = [busy.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(*row) for row in rows]
    assert fakes.runs[1:] == [[[5, 6], [10, 11], [15, 16]], [[7, 8, 9], [12, 13, 14]]]


def test_rows_with_different_outputs_do_not_share_a_run(fakes: Fakes, busy: Scheduler) -> None:
    futures = [busy.submit(batch_of([5, token]), outputs) for token in (6, 7) for outputs in (SUMS, ["states"])]
    fakes.release()
    assert [future.result(10)[0].shape for future in futures] == [(1, 2), (2, 3), (1, 2), (2, 3)]
    assert fakes.runs[1:] == [[[5, 6], [5, 7]]] * 2


def test_a_run_has_at_most_the_tokens_of_one_run(fakes: Fakes, busy: Scheduler) -> None:
    length = TOKENS_PER_RUN // 5
    futures = [busy.submit(batch_of([token] * length), SUMS) for token in range(2, 9)]
    fakes.release()
    assert unfinished(futures) == []
    assert [len(run) for run in fakes.runs[1:]] == [5, 2]


def test_a_row_that_is_longer_than_a_run_runs_alone(fakes: Fakes, busy: Scheduler) -> None:
    futures = [busy.submit(batch_of([token] * (TOKENS_PER_RUN + 1)), SUMS) for token in (2, 3)]
    fakes.release()
    assert unfinished(futures) == []
    assert [len(run) for run in fakes.runs[1:]] == [1, 1]


def test_a_worker_leaves_the_other_workers_their_share(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    scheduler = make_scheduler(threads=2)
    fakes.hold(1)
    for length in (1, 2):
        scheduler.submit(batch_of([1] * length), SUMS)
        fakes.wait(runs=length)
    futures = [scheduler.submit(batch_of([token] * 3), SUMS) for token in range(2, 10)]
    fakes.release()
    assert unfinished(futures) == []
    assert [sums(future)[0] for future in futures] == [3 * token for token in range(2, 10)]
    assert len(fakes.runs[2]) == 4


def test_rows_of_mixed_lengths_share_a_run_if_the_graph_takes_them(fakes: Fakes, busy_ragged: Scheduler) -> None:
    rows = [[5, 6], [7, 8, 9], [4]]
    futures = [busy_ragged.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(*row) for row in rows]
    assert fakes.runs[1:] == [[[5, 6, 0], [7, 8, 9], [4, 0, 0]]]
    stats = busy_ragged._engine.recorder.stats()
    assert (stats.texts, stats.tokens, stats.padding, stats.queued_tokens) == (4, 7, 3, 0)


def test_results_of_a_run_of_mixed_lengths_have_no_padding(fakes: Fakes, busy_ragged: Scheduler) -> None:
    batches = [batch_of([5, 6]), batch_of([7, 8, 9], [4], [10, 11]), batch_of([12, 13, 14, 15])]
    futures = [busy_ragged.submit(batch, ["states", "sums"]) for batch in batches]
    fakes.release()
    results = [future.result(10) for future in futures]
    assert len(fakes.runs[1]) == 5
    for batch, arrays in zip(batches, results, strict=True):
        for array, expected in zip(arrays, busy_ragged._engine.run(batch, ["states", "sums"]), strict=True):
            np.testing.assert_array_equal(array, expected)


def test_a_run_of_mixed_lengths_has_at_most_the_tokens_of_one_run(fakes: Fakes, busy_ragged: Scheduler) -> None:
    half = TOKENS_PER_RUN // 2
    rows = [[2] * half, [3] * (half - 1), [4] * (half - 20), [5] * (half - 21)]
    futures = [busy_ragged.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [expected_sums(*row) for row in rows]
    assert [len(run) for run in fakes.runs[1:]] == [2, 2]
