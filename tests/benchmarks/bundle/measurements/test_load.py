"""Open-loop load against fake services."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import encort
from encort.benchmarks.bundle.measurements.load import measure_load
from encort.benchmarks.bundle.report import LoadTest
from encort.runtime.common.errors import OverloadedError
from encort.runtime.engine.stats import Recorder
from encort.runtime.text.token_batch import Text


class FakeModel:
    """Answers one text at a time, each after the same seconds; refuses texts while `room` texts wait."""

    def __init__(self, seconds: float, room: int = 10**6) -> None:
        self.seconds, self.room, self.waiting = seconds, room, 0
        self.texts: list[Text] = []
        self.recorder = Recorder()
        self.stats = self.recorder.stats

    @asynccontextmanager
    async def serving(self, **_: Any) -> AsyncIterator["FakeModel"]:
        self.turn = asyncio.Lock()
        yield self

    async def predict(self, text: Text) -> None:
        self.texts.append(text)
        if len(self.texts) > 1 and self.waiting >= self.room:  # the first is a warm-up
            raise OverloadedError("full")
        self.waiting += 1
        start = time.perf_counter()
        async with self.turn:
            self.recorder.observe("queue_seconds", time.perf_counter() - start)
            await asyncio.sleep(self.seconds)
        self.waiting -= 1


def measure(model: FakeModel, texts: list[Text], **options: Any) -> LoadTest:
    return measure_load(cast(encort.Model, model), texts, **options)


def test_a_service_that_keeps_up_serves_all_texts(recwarn: pytest.WarningsRecorder) -> None:
    load = measure(FakeModel(0.0), ["a", "b"], rate=200, seconds=1)
    assert load.offered == 200
    assert load.refused == 0
    assert 150 < load.served < 250
    assert load.p50_ms <= load.p99_ms < 100
    assert [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)] == []


def test_a_service_that_does_not_keep_up_has_long_latencies() -> None:
    # 100 texts arrive in half a second, and take a second: the last text waits for half a second.
    load = measure(FakeModel(0.01), ["a"], rate=200, seconds=0.5)
    assert load.served < 110
    assert load.p50_ms > 150
    assert load.p99_ms > 350
    assert load.queue_ms > 100


def test_refused_texts_are_counted() -> None:
    load = measure(FakeModel(0.05, room=2), ["a"], rate=200, seconds=0.5)
    assert load.refused > 60
    assert load.p99_ms < 300


def test_a_service_that_refuses_all_texts_has_no_latency() -> None:
    load = measure(FakeModel(0.05, room=0), ["a"], rate=50, seconds=0.2)
    assert (load.served, load.refused) == (0, 10)
    assert load.p50_ms is load.p99_ms is None


def test_all_texts_differ() -> None:
    model = FakeModel(0.0)
    measure(model, ["a", ("b", "c")], rate=200, seconds=0.5)
    assert len(set(model.texts)) == len(model.texts) > 90
    assert {type(text) for text in model.texts} == {str, tuple}


def test_a_seed_determines_the_texts() -> None:
    models = [FakeModel(0.0) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        measure(model, ["a", "b", "c", "d"], rate=2000, seconds=0.05, seed=seed)
    assert models[0].texts == models[1].texts != models[2].texts


def test_a_bundle_serves_under_load(classifier_bundle: Path) -> None:
    with encort.load(classifier_bundle) as model:
        load = measure_load(model, ["hello", "my card is lost"], rate=100, seconds=0.5)
        assert model.stats().texts > 20
    assert load.refused == 0
    assert load.queue_ms >= 0
