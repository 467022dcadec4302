"""The session that runs the rows, and what the engine returns and counts."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from encort.runtime.common.errors import EncortError
from encort.runtime.engine.engine import Engine
from tests.runtime.engine.conftest import BAD
from tests.runtime.fakes import Fakes, batch_of


def test_a_run_alone_takes_all_cores_from_the_second_run_on(fakes: Fakes, engine: Engine) -> None:
    assert fakes.opened == [1]
    for opened in ([1], [1, 4], [1, 4]):
        engine.run(batch_of([5, 6]), ["sums"])
        assert fakes.opened == opened
    assert fakes.threads == [1, 4, 4]


def test_several_micro_batches_take_one_core_each(fakes: Fakes, engine: Engine) -> None:
    for _ in range(3):
        engine.run(batch_of([5], [6, 7], [8, 9, 10]), ["sums"])
    assert (fakes.opened, set(fakes.threads), len(fakes.runs)) == ([1], {1}, 9)


def test_a_run_beside_another_takes_one_core(fakes: Fakes, engine: Engine) -> None:
    engine.warm_up(1)
    release = fakes.hold(5)
    before = len(fakes.runs)
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(engine.run, batch_of([5]), ["sums"])
        fakes.wait(runs=before + 1)
        for _ in range(2):
            engine.run(batch_of([6]), ["sums"])
        release.set()
        held.result(10)
    engine.run(batch_of([6]), ["sums"])
    assert fakes.threads[before:] == [4, 1, 1, 4]


def test_many_threads_open_one_session_with_all_cores(fakes: Fakes, engine: Engine) -> None:
    together = threading.Barrier(8)
    inputs = batch_of([5, 6]).rows(np.array([0]))

    def run(_: int) -> object:
        together.wait(30)
        return engine.run_micro_batch(inputs, ["sums"], alone=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))
    assert fakes.opened == [1, 4]
    assert sorted(fakes.threads) == [1] + [4] * 7


def test_a_micro_batch_that_is_not_alone_never_takes_all_cores(fakes: Fakes, engine: Engine) -> None:
    for _ in range(3):
        engine.run_micro_batch(batch_of([5, 6]).rows(np.array([0])), ["sums"], alone=False)
    assert (fakes.opened, fakes.threads) == ([1], [1, 1, 1])


def test_one_thread_needs_one_session(fakes: Fakes, single: Engine) -> None:
    for _ in range(3):
        single.run(batch_of([5]), ["sums"])
    single.run(batch_of([5], [6, 7]), ["sums"])
    single.warm_up(8)
    assert fakes.opened == [1]


@pytest.mark.parametrize("fixture", ["single", "engine", "ragged"])
def test_results_keep_the_order_of_the_rows(request: pytest.FixtureRequest, fixture: str) -> None:
    random = np.random.default_rng(0)
    rows: list[Any] = [random.integers(1, 90, size).tolist() for size in random.integers(1, 9, 300)]
    engine: Engine = request.getfixturevalue(fixture)
    states, sums = engine.run(batch_of(*rows), ["states", "sums"])
    np.testing.assert_array_equal(sums, [[sum(row), row[0]] for row in rows])
    np.testing.assert_array_equal(states[:, 2], [3 * token for row in rows for token in row])
    assert (sums.dtype, states.dtype) == (np.float32, np.float32)


def test_rows_of_mixed_lengths_share_runs_if_the_graph_takes_them(fakes: Fakes, ragged: Engine, engine: Engine) -> None:
    rows = [list(range(1, size)) for size in range(2, 14)]
    for some_engine in (ragged, engine):
        some_engine.run(batch_of(*rows), ["sums"])
    assert any(0 in row for rows in fakes.runs for row in rows)
    assert (ragged.mixes_lengths, engine.mixes_lengths) == (True, False)
    stats = ragged.recorder.stats()
    assert (stats.texts, stats.tokens) == (12, sum(map(len, rows)))
    assert stats.padding == sum(row.count(0) for rows in fakes.runs for row in rows)
    assert engine.recorder.stats().padding == 0


def test_no_rows_give_empty_arrays_and_no_run(fakes: Fakes, engine: Engine) -> None:
    states, sums = engine.run(batch_of(), ["states", "sums"])
    assert (states.shape, sums.shape, fakes.runs) == ((0, 3), (0, 2), [])


def test_an_error_is_raised_and_later_runs_work(engine: Engine) -> None:
    for _ in range(3):
        with pytest.raises(EncortError, match="a bad id"):
            engine.run(batch_of([1], [2, 3], [BAD, 4, 5]), ["sums"])
        with pytest.raises(EncortError, match="a bad id"):
            engine.run(batch_of([BAD]), ["sums"])
        ((sums,),) = engine.run(batch_of([2, 3]), ["sums"])
        assert sums.tolist() == [5, 2]
    assert engine.is_idle
    assert engine.recorder.stats().failures == 6


def test_no_micro_batch_starts_after_an_error(fakes: Fakes, single: Engine) -> None:
    release = fakes.hold(7)
    with pytest.raises(EncortError, match="a bad id"):
        single.run(batch_of([BAD] * 4, [7] * 3, [8] * 2, [9]), ["sums"])
    release.set()
    single.close()
    assert [len(rows[0]) for rows in fakes.runs] in ([4], [4, 3])


def test_a_submitted_function_runs_in_a_thread_of_the_engine(engine: Engine) -> None:
    name = engine.submit(lambda prefix: prefix + threading.current_thread().name, "in ").result(10)
    assert name.startswith("in encort")


def test_warm_up_opens_both_sessions_and_runs_the_longest_text(fakes: Fakes, engine: Engine) -> None:
    engine.warm_up(16)
    assert fakes.opened == [1, 4]
    shapes = [(len(rows), len(rows[0])) for rows in fakes.runs]
    assert sorted(zip(fakes.threads, shapes, strict=True)) == [(1, (1, 1)), (1, (1, 16)), (4, (1, 1)), (4, (1, 16))]
    stats = engine.recorder.stats()
    assert (stats.texts, stats.runs) == (0, 0)
    engine.run(batch_of([5]), ["sums"])
    assert fakes.threads[-1] == 4


def test_texts_tokens_runs_and_failures_are_counted(engine: Engine) -> None:
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
