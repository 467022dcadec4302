"""Closing an engine, and forking the process that opened it."""

import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import EncortError, ModelClosedError
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from tests.runtime.fakes import Fakes, FakeSession, batch_of

SHORT_S = 0.05
"""Seconds after which `close` would have returned if it did not wait."""


def test_an_engine_may_be_closed_twice_and_refuses_calls_afterwards(fakes: Fakes, engine: Engine) -> None:
    engine.check_open()
    engine.close()
    engine.close()
    calls: list[Callable[[], object]] = [
        engine.check_open,
        lambda: engine.run(batch_of([5]), ["sums"]),
        lambda: engine.submit(os.getpid),
        lambda: engine.warm_up(4),
    ]
    for call in calls:
        with pytest.raises(ModelClosedError, match="load the bundle again"):
            call()
    assert [rows for rows in fakes.runs if rows == [[5]]] == []


def test_close_releases_both_sessions(fakes: Fakes, fake_variant: Variant) -> None:
    opened: list[weakref.ref[FakeSession]] = []

    def open_session(threads: int) -> FakeSession:
        session = fakes.open(threads)
        opened.append(weakref.ref(session))
        return session

    engine = Engine(fake_variant, open_session, threads=2, costs=Costs(), has_all_cores_session=True)
    engine.warm_up(4)
    assert [session() is None for session in opened] == [False, False]
    engine.close()
    assert [session() is None for session in opened] == [True, True]


@pytest.mark.parametrize(
    ("rows", "runs", "sums"),
    [([[5], [6, 7]], 2, [[5, 5], [13, 6]]), ([[5]], 1, [[5, 5]])],
    ids=["in threads of the engine", "in the calling thread"],
)
def test_close_waits_for_micro_batches_that_run(
    fakes: Fakes, engine: Engine, rows: list[list[int]], runs: int, sums: list[list[int]]
) -> None:
    release = fakes.hold(5)
    with ThreadPoolExecutor(2) as pool:
        run = pool.submit(engine.run, batch_of(*rows), ["sums"])
        fakes.wait(runs=runs)
        closing = pool.submit(engine.close)
        with pytest.raises(TimeoutError):
            closing.result(SHORT_S)
        release.set()
        closing.result(10)
        assert run.result(10)[0].tolist() == sums


def test_a_forked_child_is_told_to_load_the_model_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    for call in (engine.check_open, lambda: engine.run(batch_of([5]), ["sums"]), lambda: engine.submit(print)):
        with pytest.raises(EncortError, match="load it after"):
            call()


def test_a_forked_child_does_not_run_sessions_to_warm_up(
    fakes: Fakes, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(EncortError, match="load it after"):
        engine.warm_up(4)
    assert fakes.runs == []
