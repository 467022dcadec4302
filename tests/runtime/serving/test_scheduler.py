"""The queue in front of an engine: who is run when, with whom, and what becomes of those who are not."""

import dataclasses
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import numpy as np
import pytest

from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.errors import (
    DeadlineError,
    EncortError,
    InputError,
    InputTooLongError,
    ModelClosedError,
    OverloadedError,
    WorkerDiedError,
)
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.planner import TOKENS_PER_RUN
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.text.token_batch import TokenBatch

SUMS = ["sums"]
NEVER = 60
"""Seconds that no test waits."""


def batch_of(*rows):
    ids = np.array([token for row in rows for token in row], np.int64)
    return TokenBatch(
        ids=ids,
        type_ids=np.zeros_like(ids),
        cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        truncated=np.zeros(len(rows), np.bool_),
    )


def sums(future):
    """What came out for a text of one row."""
    ((row,),) = future.result(10)
    return row.tolist()


def wanted(*ids):
    return [sum(ids), ids[0]]


def refuses(scheduler):
    """Wait until it takes nothing more."""
    for _ in range(1000):
        try:
            scheduler.submit(batch_of([1]), SUMS).cancel()
        except ModelClosedError:
            return True
        time.sleep(0.01)
    return False


@pytest.fixture
def make(fakes, fake_variant):
    """`make(threads=2, max_wait_s=0, queue_tokens=1000)` gives a scheduler over an engine of its own."""
    engines = []

    def scheduler(*, threads=1, max_wait_s=0, queue_tokens=100_000, layout=Layout.EQUAL_LENGTH):
        variant = dataclasses.replace(fake_variant, layout=layout)
        engines.append(Engine(variant, fakes.open, threads=threads, costs=Costs(), has_all_cores_session=True))
        made = Scheduler(engines[-1], max_wait_s=max_wait_s, queue_tokens=queue_tokens)
        made.engine = engines[-1]
        return made

    yield scheduler
    fakes.release()
    for engine in engines:
        engine.close()


@pytest.fixture
def scheduler(make):
    return make()


@pytest.fixture
def busy(fakes, scheduler):
    """Call it to let the run go that holds the scheduler's only thread."""
    free = fakes.hold(1)
    future = scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    yield free.set
    free.set()
    assert sums(future) == wanted(1)


def test_one_text_gives_what_the_engine_gives(scheduler):
    batch = batch_of([5, 6, 7])
    found = scheduler.submit(batch, ["states", "sums"]).result(10)
    for array, expected in zip(found, scheduler.engine.run(batch, ["states", "sums"]), strict=True):
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == np.float32


def test_the_oldest_row_is_run_first_whatever_its_length(fakes, scheduler, busy):
    rows = [[5, 6], [7, 8, 9], [4], [3] * 9, [2] * 6]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows]
    busy()
    assert [sums(future) for future in futures] == [wanted(*row) for row in rows]
    assert fakes.runs[1:] == [[row] for row in rows]


def test_rows_of_one_length_share_the_run_of_the_oldest(fakes, scheduler, busy):
    rows = [[5, 6], [7, 8, 9], [10, 11], [12, 13, 14], [15, 16]]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows]
    busy()
    assert [sums(future) for future in futures] == [wanted(*row) for row in rows]
    assert fakes.runs[1:] == [[[5, 6], [10, 11], [15, 16]], [[7, 8, 9], [12, 13, 14]]]


def test_rows_that_need_other_outputs_do_not_share_a_run(fakes, scheduler, busy):
    futures = [scheduler.submit(batch_of([5, token]), outputs) for token in (6, 7) for outputs in (SUMS, ["states"])]
    busy()
    assert [future.result(10)[0].shape for future in futures] == [(1, 2), (2, 3), (1, 2), (2, 3)]
    assert fakes.runs[1:] == [[[5, 6], [5, 7]]] * 2


def test_a_run_has_no_more_tokens_than_are_worth_it(fakes, scheduler, busy):
    size = TOKENS_PER_RUN // 5
    rows = [[token] * size for token in range(2, 9)]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows]
    busy()
    wait_for(futures, timeout=10)
    assert [len(run) for run in fakes.runs[1:]] == [5, 2]


def test_a_row_that_is_longer_than_a_run_is_run_alone(fakes, scheduler, busy):
    futures = [scheduler.submit(batch_of([token] * (TOKENS_PER_RUN + 1)), SUMS) for token in (2, 3)]
    busy()
    wait_for(futures, timeout=10)
    assert [len(run) for run in fakes.runs[1:]] == [1, 1]


def test_a_worker_leaves_their_share_to_the_others(fakes, make):
    scheduler = make(threads=2)
    free = fakes.hold(1)
    for length in (1, 2):
        scheduler.submit(batch_of([1] * length), SUMS)
        fakes.wait(runs=length)
    futures = [scheduler.submit(batch_of([token] * 3), SUMS) for token in range(2, 10)]
    free.set()
    wait_for(futures, timeout=10)
    assert [sums(future)[0] for future in futures] == [3 * token for token in range(2, 10)]
    assert len(fakes.runs[2]) == 4


def test_a_row_waits_for_others_until_a_run_is_full(fakes, make):
    scheduler = make(max_wait_s=NEVER)
    rows = [[token] * (TOKENS_PER_RUN // 4) for token in (5, 6, 7, 8)]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows[:3]]
    assert wait_for(futures, timeout=0.1).done == set()
    assert fakes.runs == []
    futures.append(scheduler.submit(batch_of(rows[3]), SUMS))
    assert [sums(future) for future in futures] == [wanted(*row) for row in rows]
    assert fakes.runs == [rows]


def test_no_row_of_a_full_run_waits_any_longer(make):
    scheduler = make(threads=2, max_wait_s=NEVER)
    rows = [[token] * (TOKENS_PER_RUN // 4) for token in (5, 6, 7, 8)]
    futures = [scheduler.submit(batch_of(row), SUMS) for row in rows]
    try:
        assert wait_for(futures, timeout=1).not_done == set()
    finally:
        scheduler.close()


def test_a_row_waits_for_others_only_so_long(fakes, make):
    scheduler = make(max_wait_s=0.05)
    assert sums(scheduler.submit(batch_of([5, 6]), SUMS)) == wanted(5, 6)
    assert fakes.runs == [[[5, 6]]]


def test_a_row_that_waits_does_not_hold_up_the_next_once_it_is_cancelled(fakes, make):
    scheduler = make(max_wait_s=NEVER)
    assert scheduler.submit(batch_of([5, 6]), SUMS).cancel()
    full = scheduler.submit(batch_of([7] * TOKENS_PER_RUN), SUMS)
    assert sums(full) == [7 * TOKENS_PER_RUN, 7]
    assert len(fakes.runs) == 1


@pytest.fixture
def mixed(fakes, make):
    """A scheduler over a graph that takes rows of different lengths; its only thread is held by `[1]`."""
    scheduler = make(layout=Layout.RAGGED)
    fakes.hold(1)
    scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    return scheduler


def test_rows_of_mixed_lengths_share_a_run_where_the_graph_takes_them(fakes, mixed):
    rows = [[5, 6], [7, 8, 9], [4]]
    futures = [mixed.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [wanted(*row) for row in rows]
    assert fakes.runs[1:] == [[[5, 6, 0], [7, 8, 9], [4, 0, 0]]]
    stats = mixed.engine.recorder.stats()
    assert (stats.texts, stats.tokens, stats.padding, stats.queued_tokens) == (4, 7, 3, 0)


def test_no_padding_comes_out_of_a_run_of_mixed_lengths(fakes, mixed):
    batches = [batch_of([5, 6]), batch_of([7, 8, 9], [4], [10, 11]), batch_of([12, 13, 14, 15])]
    futures = [mixed.submit(batch, ["states", "sums"]) for batch in batches]
    fakes.release()
    for batch, future in zip(batches, futures, strict=True):
        for found, expected in zip(future.result(10), mixed.engine.run(batch, ["states", "sums"]), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert len(fakes.runs[1]) == 5


def test_a_run_of_mixed_lengths_has_no_more_tokens_than_are_worth_it(fakes, mixed):
    half = TOKENS_PER_RUN // 2
    rows = [[2] * half, [3] * (half - 1), [4] * (half - 20), [5] * (half - 21)]
    futures = [mixed.submit(batch_of(row), SUMS) for row in rows]
    fakes.release()
    assert [sums(future) for future in futures] == [wanted(*row) for row in rows]
    assert [len(run) for run in fakes.runs[1:]] == [2, 2]


def test_a_row_of_mixed_lengths_that_nobody_wants_leaves_the_others(fakes, mixed):
    futures = [mixed.submit(batch_of(row), SUMS) for row in ([5, 6], [7], [8, 9, 10])]
    late = mixed.submit(batch_of([11, 12]), SUMS, deadline=time.monotonic())
    assert futures.pop(1).cancel()
    fakes.release()
    assert [sums(future) for future in futures] == [wanted(5, 6), wanted(8, 9, 10)]
    assert isinstance(late.exception(10), DeadlineError)
    assert fakes.runs[1:] == [[[5, 6, 0], [8, 9, 10]]]
    assert mixed.engine.recorder.stats().queued_tokens == 0


def test_the_same_text_in_the_queue_is_run_once(fakes, scheduler, busy):
    futures = [scheduler.submit(batch_of([5, 6]), SUMS) for _ in range(3)]
    busy()
    assert [sums(future) for future in futures] == [wanted(5, 6)] * 3
    assert fakes.runs[1:] == [[[5, 6]]]
    stats = scheduler.engine.recorder.stats()
    assert (stats.shared, stats.texts) == (2, 2)


def test_the_same_text_is_not_run_while_it_runs(fakes, scheduler):
    free = fakes.hold(5)
    first = scheduler.submit(batch_of([5, 6]), SUMS)
    fakes.wait(runs=1)
    second = scheduler.submit(batch_of([5, 6]), SUMS)
    free.set()
    assert sums(first) == sums(second) == wanted(5, 6)
    assert len(fakes.runs) == 1
    assert scheduler.engine.recorder.stats().queued_tokens == 0


def test_callers_of_the_same_text_get_arrays_of_their_own(scheduler, busy):
    first, second = (scheduler.submit(batch_of([5, 6]), ["states"]) for _ in range(2))
    busy()
    first.result(10)[0][:] = -1
    assert second.result(10)[0].tolist() == [[5, 10, 15], [6, 12, 18]]


def test_a_text_that_was_run_is_run_again(fakes, scheduler):
    for _ in range(2):
        assert sums(scheduler.submit(batch_of([5, 6]), SUMS)) == wanted(5, 6)
    assert len(fakes.runs) == 2


def test_type_ids_make_another_text(fakes, scheduler, busy):
    plain = batch_of([5, 6])
    paired = TokenBatch(**vars(plain) | {"type_ids": np.array([0, 1])})
    futures = [scheduler.submit(batch, SUMS) for batch in (plain, paired)]
    busy()
    wait_for(futures, timeout=10)
    assert fakes.runs[1:] == [[[5, 6], [5, 6]]]


def test_a_full_queue_refuses_a_text_and_takes_it_once_there_is_room(fakes, make):
    scheduler = make(queue_tokens=4)
    free = fakes.hold(1)
    running = scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    queued = [scheduler.submit(batch_of([token, token]), SUMS) for token in (5, 6)]
    with pytest.raises(OverloadedError, match=r"4 tokens wait, and 1 more would pass queue_tokens=4"):
        scheduler.submit(batch_of([7]), SUMS)
    shared = [scheduler.submit(batch_of([5, 5]), SUMS), scheduler.submit(batch_of([1]), SUMS)]
    stats = scheduler.engine.recorder.stats()
    assert (stats.overloads, stats.queued_tokens, stats.shared) == (1, 4, 2)
    free.set()
    assert [sums(future)[0] for future in (running, *queued, *shared)] == [1, 10, 12, 10, 1]
    assert sums(scheduler.submit(batch_of([7]), SUMS)) == wanted(7)
    assert [[7]] in fakes.runs


def test_a_text_that_no_empty_queue_takes_is_too_long(make):
    scheduler = make(queue_tokens=4)
    with pytest.raises(InputTooLongError, match="5 tokens does not fit into queue_tokens=4"):
        scheduler.submit(batch_of([5, 5], [6, 6, 6]), SUMS)
    assert sums(scheduler.submit(batch_of([5] * 4), SUMS)) == wanted(5, 5, 5, 5)


def test_a_cancelled_row_is_never_run_and_leaves_its_room(fakes, make):
    scheduler = make(queue_tokens=2)
    free = fakes.hold(1)
    scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    given_up = scheduler.submit(batch_of([5, 6]), SUMS)
    with pytest.raises(OverloadedError):
        scheduler.submit(batch_of([7, 8]), SUMS)
    assert given_up.cancel()
    stats = scheduler.engine.recorder.stats()
    assert (stats.queued_tokens, stats.expired) == (0, 1)
    other = scheduler.submit(batch_of([7, 8]), SUMS)
    free.set()
    assert sums(other) == wanted(7, 8)
    assert fakes.runs == [[[1]], [[7, 8]]]


def test_a_row_that_runs_may_be_cancelled(fakes, scheduler):
    free = fakes.hold(5)
    future = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    assert future.cancel()
    free.set()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == wanted(6)
    assert scheduler.engine.recorder.stats().expired == 0


def test_a_cancelled_text_may_be_asked_for_again(fakes, scheduler, busy):
    assert scheduler.submit(batch_of([5, 6]), SUMS).cancel()
    again = scheduler.submit(batch_of([5, 6]), SUMS)
    busy()
    assert sums(again) == wanted(5, 6)
    assert fakes.runs[1:] == [[[5, 6]]]


def test_a_row_past_its_deadline_is_never_run(fakes, scheduler, busy):
    late = scheduler.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic())
    timely = scheduler.submit(batch_of([7, 8]), SUMS, deadline=time.monotonic() + NEVER)
    busy()
    with pytest.raises(DeadlineError, match="deadline passed"):
        late.result(10)
    assert sums(timely) == wanted(7, 8)
    assert fakes.runs[1:] == [[[7, 8]]]
    stats = scheduler.engine.recorder.stats()
    assert (stats.expired, stats.queued_tokens) == (1, 0)


def test_a_row_is_run_for_the_last_of_its_callers(fakes, scheduler, busy):
    late = scheduler.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic())
    timely = scheduler.submit(batch_of([5, 6]), SUMS, deadline=time.monotonic() + NEVER)
    busy()
    assert sums(timely) == wanted(5, 6)
    assert late.done()
    assert fakes.runs[1:] == [[[5, 6]]]


@pytest.mark.parametrize("leaving", [0, 1])
def test_when_one_of_two_callers_leaves_the_other_gets_the_result(fakes, scheduler, busy, leaving):
    futures = [scheduler.submit(batch_of([5, 6]), SUMS) for _ in range(2)]
    assert futures.pop(leaving).cancel()
    assert scheduler.engine.recorder.stats().queued_tokens == 2
    busy()
    assert sums(futures[0]) == wanted(5, 6)
    assert fakes.runs[1:] == [[[5, 6]]]


def test_when_all_callers_leave_nothing_is_run(fakes, scheduler, busy):
    futures = [scheduler.submit(batch_of([5, 6]), SUMS) for _ in range(2)]
    assert all(future.cancel() for future in futures)
    other = scheduler.submit(batch_of([7]), SUMS)
    busy()
    assert sums(other) == wanted(7)
    assert fakes.runs[1:] == [[[7]]]


def test_an_error_is_told_to_the_callers_of_its_run_alone(fakes, scheduler, busy):
    fakes.errors[7] = ValueError("a bad id")
    failing = [scheduler.submit(batch_of(row), SUMS) for row in ([7, 8], [9, 10], [7, 8])]
    fine = scheduler.submit(batch_of([5, 6, 4]), SUMS)
    busy()
    for future in failing:
        assert future.exception(10) is fakes.errors[7]
    assert sums(fine) == wanted(5, 6, 4)
    assert sums(scheduler.submit(batch_of([9, 10]), SUMS)) == wanted(9, 10)
    assert scheduler.engine.recorder.stats().failures == 1


def test_a_worker_that_dies_fails_everybody_who_waits(fakes, scheduler, busy):
    fakes.errors[7] = SystemExit(3)
    futures = [scheduler.submit(batch_of(row), SUMS) for row in ([7, 8], [9, 10], [2, 3, 4])]
    busy()
    for future in futures:
        error = future.exception(10)
        assert isinstance(error, WorkerDiedError)
        assert "SystemExit(3)" in str(error)
        assert error.__cause__ is fakes.errors[7]
    assert [[2, 3, 4]] not in fakes.runs
    assert scheduler.engine.recorder.stats().queued_tokens == 0
    assert sums(scheduler.submit(batch_of([2, 3, 4]), SUMS)) == wanted(2, 3, 4)
    scheduler.close()


def test_who_runs_in_another_thread_is_told_at_once_that_a_worker_died(fakes, make):
    scheduler = make(threads=2)
    free = fakes.hold(5)
    fakes.errors[7] = SystemExit()
    running = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    dying = scheduler.submit(batch_of([7]), SUMS)
    assert isinstance(dying.exception(10), WorkerDiedError)
    assert isinstance(running.exception(10), WorkerDiedError)
    free.set()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == wanted(6)


@pytest.fixture
def asked_again(fakes, make):
    """A scheduler that lost a worker while `[5]` ran; `[5]` was asked for again and runs, and the old run is over."""
    scheduler = make(threads=2)
    old, new = threading.Event(), threading.Event()
    fakes.errors[7] = SystemExit()
    fakes.holds[5] = old
    scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    assert isinstance(scheduler.submit(batch_of([7]), SUMS).exception(10), WorkerDiedError)
    fakes.holds[5] = new
    again = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=3)
    old.set()
    assert sums(scheduler.submit(batch_of([6]), SUMS)) == wanted(6)  # by the thread of the old run
    return scheduler, again


def test_close_waits_for_a_text_that_was_asked_for_again_after_a_worker_died(fakes, asked_again):
    scheduler, again = asked_again
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler.close)
        try:
            assert wait_for([closing], timeout=0.2).done == set()
        finally:
            fakes.holds[5].set()
        closing.result(10)
    assert sums(again) == wanted(5)


def test_a_text_that_was_asked_for_again_after_a_worker_died_is_shared(fakes, asked_again):
    scheduler, again = asked_again
    third = scheduler.submit(batch_of([5]), SUMS)
    fakes.holds[5].set()
    assert sums(again) == sums(third) == wanted(5)
    assert fakes.runs.count([[5]]) == 2


def test_a_result_that_cannot_be_put_together_does_not_leave_its_caller_waiting(scheduler):
    windows = batch_of([5], [6, 7])
    future = scheduler.submit(windows, ["odd"])
    assert future.exception(1) is not None


def test_windows_of_one_text_make_one_result_in_order(fakes, make):
    scheduler = make(threads=2)
    free = fakes.hold(5)
    batch = batch_of([5, 6, 7], [8, 9, 10], [11], [12, 13])
    future = scheduler.submit(batch, ["states", "sums"])
    fakes.wait(runs=2)
    assert not future.done()
    free.set()
    found = future.result(10)
    for array, expected in zip(found, scheduler.engine.run(batch, ["states", "sums"]), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_a_window_twice_in_one_text_is_run_once(fakes, scheduler, busy):
    future = scheduler.submit(batch_of([5, 6], [7], [5, 6]), SUMS)
    busy()
    assert future.result(10)[0].tolist() == [wanted(5, 6), wanted(7), wanted(5, 6)]
    assert sorted(fakes.runs[1:]) == [[[5, 6]], [[7]]]


def test_windows_share_runs_with_other_texts(fakes, scheduler, busy):
    windows = scheduler.submit(batch_of([5, 6], [7, 8]), SUMS)
    text = scheduler.submit(batch_of([7, 8]), SUMS)
    other = scheduler.submit(batch_of([9, 10]), SUMS)
    busy()
    assert windows.result(10)[0].tolist() == [wanted(5, 6), wanted(7, 8)]
    assert (sums(text), sums(other)) == (wanted(7, 8), wanted(9, 10))
    assert fakes.runs[1:] == [[[5, 6], [7, 8], [9, 10]]]


def test_an_error_in_one_window_takes_the_others_out_of_the_queue(fakes, scheduler, busy):
    fakes.errors[7] = ValueError("a bad id")
    future = scheduler.submit(batch_of([7], [5, 6], [8, 9, 10]), SUMS)
    shared = scheduler.submit(batch_of([8, 9, 10]), SUMS)
    busy()
    assert future.exception(10) is fakes.errors[7]
    assert sums(shared) == wanted(8, 9, 10)
    assert fakes.runs[1:] == [[[7]], [[8, 9, 10]]]
    assert scheduler.engine.recorder.stats().queued_tokens == 0


def test_windows_past_their_deadline_are_never_run(fakes, scheduler, busy):
    late = scheduler.submit(batch_of([5, 6], [7, 8], [9], [5, 6]), SUMS, deadline=time.monotonic())
    timely = scheduler.submit(batch_of([4, 4]), SUMS)
    busy()
    assert isinstance(late.exception(10), DeadlineError)
    assert sums(timely) == wanted(4, 4)
    assert fakes.runs[1:] == [[[4, 4]]]
    assert scheduler.engine.recorder.stats().queued_tokens == 0


def test_close_runs_what_waits_and_takes_nothing_more(fakes, scheduler):
    free = fakes.hold(1)
    futures = [scheduler.submit(batch_of(row), SUMS) for row in ([1], [5, 6], [7, 8, 9])]
    fakes.wait(runs=1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler.close)
        assert refuses(scheduler)
        with pytest.raises(ModelClosedError, match=r"begin another with model.serving\(\)"):
            scheduler.submit(batch_of([4]), SUMS)
        assert not closing.done()
        free.set()
        closing.result(10)
    assert all(future.done() for future in futures)
    assert [sums(future)[0] for future in futures] == [1, 11, 24]
    scheduler.close()


def test_close_runs_what_waits_for_others_at_once(make):
    scheduler = make(max_wait_s=NEVER)
    future = scheduler.submit(batch_of([5, 6]), SUMS)
    scheduler.close()
    assert future.done()
    assert sums(future) == wanted(5, 6)


def test_the_engine_works_on_after_a_scheduler_was_closed(scheduler):
    scheduler.close()
    again = Scheduler(scheduler.engine, max_wait_s=0, queue_tokens=10)
    assert sums(again.submit(batch_of([5]), SUMS)) == wanted(5)


def test_closing_the_engine_finishes_what_waits(fakes, scheduler):
    free = fakes.hold(1)
    futures = [scheduler.submit(batch_of(row), SUMS) for row in ([1], [5, 6], [7, 8, 9])]
    fakes.wait(runs=1)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(scheduler.engine.close)
        assert refuses(scheduler)
        free.set()
        closing.result(10)
    assert [sums(future)[0] for future in futures] == [1, 11, 24]
    with pytest.raises(ModelClosedError, match="load the bundle again"):
        scheduler.submit(batch_of([5, 6]), SUMS)
    scheduler.close()


def closed(*_):
    raise ModelClosedError("this model was closed; load the bundle again")


def test_a_text_that_comes_while_the_engine_closes_is_run_by_a_worker_that_still_runs(fakes, make, monkeypatch):
    scheduler = make(threads=2)
    free = fakes.hold(5)
    running = scheduler.submit(batch_of([5]), SUMS)
    fakes.wait(runs=1)
    monkeypatch.setattr(scheduler.engine, "submit", closed)
    coming = scheduler.submit(batch_of([6, 6]), SUMS)
    free.set()
    assert (sums(running), sums(coming)) == (wanted(5), wanted(6, 6))
    scheduler.close()


def test_where_no_worker_can_begin_everybody_who_waits_learns_it(make, monkeypatch):
    scheduler = make(threads=1)
    others = []

    def closed_meanwhile(*_):
        if not others:
            others.append(scheduler.submit(batch_of([6, 6]), SUMS))
        closed()

    monkeypatch.setattr(scheduler.engine, "submit", closed_meanwhile)
    first = scheduler.submit(batch_of([5]), SUMS)
    assert [type(future.exception(10)) for future in (first, *others)] == [ModelClosedError] * 2
    scheduler.close()


def test_after_a_thread_that_could_not_start_the_next_text_is_run(scheduler, monkeypatch):
    def fail(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises((EncortError, RuntimeError)):
            scheduler.submit(batch_of([5]), SUMS).result(10)
    again = scheduler.submit(batch_of([6]), SUMS)
    assert wait_for([again], timeout=1).not_done == set()
    assert sums(again) == wanted(6)


@pytest.mark.parametrize("max_wait_s", [-0.001, -1, float("nan")])
def test_a_wait_below_zero_is_refused(make, max_wait_s):
    with pytest.raises(InputError, match="max_wait_ms must be a number of at least 0, got"):
        make(max_wait_s=max_wait_s)


def test_an_infinite_wait_is_refused_or_waits(make):
    try:
        scheduler = make(max_wait_s=float("inf"))
    except InputError:
        return
    assert sums(scheduler.submit(batch_of([5] * TOKENS_PER_RUN), SUMS))[1] == 5
    future = scheduler.submit(batch_of([5]), SUMS)
    assert wait_for([future], timeout=0.1).done == set()
    scheduler.close()
    assert sums(future) == wanted(5)


@pytest.mark.parametrize("queue_tokens", [0, -1])
def test_a_queue_without_room_is_refused(make, queue_tokens):
    with pytest.raises(InputError, match="queue_tokens must be at least 1, got"):
        make(queue_tokens=queue_tokens)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_threads_that_come_and_go_all_get_their_own_result(make, threads):
    scheduler = make(threads=threads, queue_tokens=400)
    together, callers = threading.Barrier(16), 16

    def call(seed):
        random, outcomes = np.random.default_rng(seed), []
        together.wait(30)
        for _ in range(100):
            row = random.integers(1, 9, random.integers(1, 6)).tolist()
            deadline = math.inf if random.random() < 0.7 else time.monotonic() + random.random() / 1000
            try:
                future = scheduler.submit(batch_of(row), SUMS, deadline=deadline)
            except OverloadedError:
                outcomes.append("refused")
                continue
            if random.random() < 0.2 and future.cancel():
                outcomes.append("left")
                continue
            try:
                assert sums(future) == wanted(*row)
                outcomes.append("done")
            except DeadlineError:
                outcomes.append("late")
        return outcomes

    with ThreadPoolExecutor(callers) as pool:
        outcomes = [outcome for found in pool.map(call, range(callers)) for outcome in found]
    scheduler.close()
    stats = scheduler.engine.recorder.stats()
    assert len(outcomes) == 1600
    assert "done" in outcomes
    assert (stats.queued_tokens, stats.failures) == (0, 0)
    assert stats.overloads == outcomes.count("refused")
    assert stats.texts + stats.shared + stats.expired == len(outcomes) - outcomes.count("refused")
