"""Which session runs what, with sessions that only write it down."""

import dataclasses
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.errors import EncortError, ModelClosedError
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from encort.runtime.text.token_batch import TokenBatch

BAD = 99


def batch_of(*rows, truncated=()):
    ids = np.array([token for row in rows for token in row], np.int64)
    return TokenBatch(
        ids=ids,
        type_ids=np.zeros_like(ids),
        cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        truncated=np.isin(np.arange(len(rows)), truncated),
    )


@pytest.fixture
def make(fakes, fake_variant):
    """`make(threads=4, layout=...)` gives an engine over the fakes, which raise an error at the id `BAD`."""
    engines = []
    fakes.errors[BAD] = EncortError("a bad id")

    def engine(*, threads, layout=Layout.EQUAL_LENGTH):
        variant = dataclasses.replace(fake_variant, layout=layout)
        engines.append(Engine(variant, fakes.open, threads=threads, costs=Costs(), has_all_cores_session=True))
        return engines[-1]

    yield engine
    fakes.release()
    for made in engines:
        made.close()


@pytest.fixture
def engine(make):
    return make(threads=4)


@pytest.fixture
def single(make):
    return make(threads=1)


@pytest.fixture
def mixed(make):
    """An engine over a graph that takes rows of different lengths."""
    return make(threads=2, layout=Layout.RAGGED)


def test_a_run_that_is_alone_takes_all_cores_from_the_second_time_on(fakes, engine):
    assert fakes.opened == [1]
    for opened in ([1], [1, 4], [1, 4]):
        engine.run(batch_of([5, 6]), ["sums"])
        assert fakes.opened == opened
    assert fakes.threads == [1, 4, 4]


def test_several_micro_batches_take_a_core_each(fakes, engine):
    for _ in range(3):
        engine.run(batch_of([5], [6, 7], [8, 9, 10]), ["sums"])
    assert (fakes.opened, set(fakes.threads), len(fakes.runs)) == ([1], {1}, 9)


def test_a_run_beside_another_takes_one_core(fakes, engine):
    engine.warm_up(1)
    free = fakes.hold(5)
    before = len(fakes.runs)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(engine.run, batch_of([5]), ["sums"])
        fakes.wait(runs=before + 1)
        for _ in range(2):
            engine.run(batch_of([6]), ["sums"])
        free.set()
        held.result(10)
    engine.run(batch_of([6]), ["sums"])
    assert fakes.threads[before:] == [4, 1, 1, 4]


def test_many_threads_open_one_wide_session(fakes, engine):
    together = threading.Barrier(8)
    inputs = batch_of([5, 6]).rows(np.array([0]))

    def run(_):
        together.wait(30)
        return engine.run_micro_batch(inputs, ["sums"], alone=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert fakes.opened == [1, 4]
    assert sorted(fakes.threads) == [1] + [4] * 7


def test_rows_that_are_not_alone_never_take_all_cores(fakes, engine):
    for _ in range(3):
        engine.run_micro_batch(batch_of([5, 6]).rows(np.array([0])), ["sums"], alone=False)
    assert (fakes.opened, fakes.threads) == ([1], [1, 1, 1])


def test_one_thread_needs_one_session(fakes, single):
    for _ in range(3):
        single.run(batch_of([5]), ["sums"])
    single.run(batch_of([5], [6, 7]), ["sums"])
    single.warm_up(8)
    assert fakes.opened == [1]


@pytest.mark.parametrize("fixture", ["single", "engine", "mixed"])
def test_results_keep_the_order_of_the_rows(request, fixture):
    random = np.random.default_rng(0)
    rows = [random.integers(1, 90, size).tolist() for size in random.integers(1, 9, 300)]
    states, sums = request.getfixturevalue(fixture).run(batch_of(*rows), ["states", "sums"])
    np.testing.assert_array_equal(sums, [[sum(row), row[0]] for row in rows])
    np.testing.assert_array_equal(states[:, 2], [3 * token for row in rows for token in row])
    assert (sums.dtype, states.dtype) == (np.float32, np.float32)


def test_rows_of_mixed_lengths_share_runs_where_the_graph_takes_them(fakes, mixed, engine):
    rows = [list(range(1, size)) for size in range(2, 14)]
    for each in (mixed, engine):
        each.run(batch_of(*rows), ["sums"])
    assert any(0 in row for rows in fakes.runs for row in rows)
    assert (mixed.mixes_lengths, engine.mixes_lengths) == (True, False)
    stats = mixed.recorder.stats()
    assert (stats.texts, stats.tokens) == (12, sum(map(len, rows)))
    assert stats.padding == sum(row.count(0) for rows in fakes.runs for row in rows)
    assert engine.recorder.stats().padding == 0


def test_no_rows_give_empty_arrays_and_no_run(fakes, engine):
    states, sums = engine.run(batch_of(), ["states", "sums"])
    assert (states.shape, sums.shape, fakes.runs) == ((0, 3), (0, 2), [])


def test_an_error_is_raised_and_later_runs_work(engine):
    for _ in range(3):
        with pytest.raises(EncortError, match="a bad id"):
            engine.run(batch_of([1], [2, 3], [BAD, 4, 5]), ["sums"])
        with pytest.raises(EncortError, match="a bad id"):
            engine.run(batch_of([BAD]), ["sums"])
        ((found,),) = engine.run(batch_of([2, 3]), ["sums"])
        assert found.tolist() == [5, 2]
    assert engine.is_idle
    assert engine.recorder.stats().failures == 6


def test_after_an_error_what_has_not_begun_is_not_begun(fakes, single):
    free = fakes.hold(7)
    with pytest.raises(EncortError, match="a bad id"):
        single.run(batch_of([BAD] * 4, [7] * 3, [8] * 2, [9]), ["sums"])
    free.set()
    single.close()
    assert [len(rows[0]) for rows in fakes.runs] in ([4], [4, 3])


def test_what_is_submitted_runs_in_an_engines_thread(engine):
    name = engine.submit(lambda prefix: prefix + threading.current_thread().name, "in ").result(10)
    assert name.startswith("in encort")


def test_closing_twice_is_fine_and_everything_says_so(fakes, engine):
    engine.check_open()
    engine.close()
    engine.close()
    calls = [
        engine.check_open,
        lambda: engine.run(batch_of([5]), ["sums"]),
        lambda: engine.submit(os.getpid),
        lambda: engine.warm_up(4),
    ]
    for call in calls:
        with pytest.raises(ModelClosedError, match="load the bundle again"):
            call()
    assert [rows for rows in fakes.runs if rows == [[5]]] == []


def test_closing_lets_both_sessions_go(fakes, fake_variant):
    opened = []

    def open_session(threads):
        session = fakes.open(threads)
        opened.append(weakref.ref(session))
        return session

    engine = Engine(fake_variant, open_session, threads=2, costs=Costs(), has_all_cores_session=True)
    engine.warm_up(4)
    assert [session() is None for session in opened] == [False, False]
    engine.close()
    assert [session() is None for session in opened] == [True, True]


def test_closing_waits_for_what_runs(fakes, engine):
    free = fakes.hold(5)
    with ThreadPoolExecutor(2) as pool:
        run = pool.submit(engine.run, batch_of([5], [6, 7]), ["sums"])
        fakes.wait(runs=2)
        closing = pool.submit(engine.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        free.set()
        closing.result(10)
        assert run.result(10)[0].tolist() == [[5, 5], [13, 6]]


def test_closing_waits_for_a_run_in_the_callers_own_thread(fakes, engine):
    free = fakes.hold(5)
    with ThreadPoolExecutor(2) as pool:
        run = pool.submit(engine.run, batch_of([5]), ["sums"])
        fakes.wait(runs=1)
        closing = pool.submit(engine.close)
        with pytest.raises(TimeoutError):
            closing.result(0.1)
        free.set()
        closing.result(10)
        assert run.result(10)[0].tolist() == [[5, 5]]


def test_a_fork_is_told_to_load_again(engine, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for call in (engine.check_open, lambda: engine.run(batch_of([5]), ["sums"]), lambda: engine.submit(print)):
        with pytest.raises(EncortError, match="load it after"):
            call()


def test_a_fork_does_not_run_sessions_to_warm_up(fakes, engine, monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(EncortError, match="load it after"):
        engine.warm_up(4)
    assert fakes.runs == []


def test_warming_up_opens_both_sessions_and_runs_the_longest_text(fakes, engine):
    engine.warm_up(16)
    assert fakes.opened == [1, 4]
    shapes = [(len(rows), len(rows[0])) for rows in fakes.runs]
    assert sorted(zip(fakes.threads, shapes, strict=True)) == [(1, (1, 1)), (1, (1, 16)), (4, (1, 1)), (4, (1, 16))]
    stats = engine.recorder.stats()
    assert (stats.texts, stats.runs) == (0, 0)
    engine.run(batch_of([5]), ["sums"])
    assert fakes.threads[-1] == 4


def test_texts_tokens_runs_and_failures_are_counted(engine):
    engine.run(batch_of([1, 2], [3, 4], [5], truncated=[1, 2]), ["sums"])
    stats = engine.recorder.stats()
    assert (stats.texts, stats.tokens, stats.truncated, stats.failures) == (3, 5, 0, 0)
    runs = stats.runs
    assert runs in (2, 3)
    with pytest.raises(EncortError):
        engine.run(batch_of([BAD, 1], truncated=[0]), ["sums"])
    stats = engine.recorder.stats()
    assert (stats.texts, stats.tokens, stats.truncated, stats.failures) == (3, 5, 0, 1)
    assert (stats.runs, stats.run_seconds.count) == (runs, runs)
