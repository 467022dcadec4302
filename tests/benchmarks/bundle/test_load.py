"""Open-loop load against services that are made up."""

import asyncio
import time
from contextlib import asynccontextmanager

import encort
from encort.benchmarks.bundle.load import measure_load
from encort.runtime.common.errors import OverloadedError
from encort.runtime.engine.stats import Recorder


class Model:
    """Answers one text at a time, after so many seconds; turns away what comes while more than `room` wait."""

    def __init__(self, seconds: float, room: int = 10**6) -> None:
        self.seconds, self.room, self.waiting = seconds, room, 0
        self.asked: list[str] = []
        self.recorder = Recorder()
        self.stats = self.recorder.stats

    @asynccontextmanager
    async def serving(self, **_):
        self.turn = asyncio.Lock()
        yield self

    async def predict(self, text):
        self.asked.append(text)
        if len(self.asked) > 1 and self.waiting >= self.room:  # the first is a warm-up
            raise OverloadedError("full")
        self.waiting += 1
        begin = time.perf_counter()
        async with self.turn:
            self.recorder.observe("queue_seconds", time.perf_counter() - begin)
            await asyncio.sleep(self.seconds)
        self.waiting -= 1


def test_a_service_that_keeps_up(recwarn):
    found = measure_load(Model(0.0), ["a", "b"], rate=200, seconds=1)
    assert found.offered == 200
    assert found.turned_away == 0
    assert 150 < found.served < 250
    assert found.p50_ms <= found.p99_ms < 100
    assert not recwarn


def test_a_service_that_does_not_keep_up_is_not_measured_as_a_fast_one():
    # 100 texts come in half a second, a second's work: the last waits for half a second.
    found = measure_load(Model(0.01), ["a"], rate=200, seconds=0.5)
    assert found.served < 110
    assert found.p50_ms > 150
    assert found.p99_ms > 350
    assert found.queue_ms > 100


def test_texts_that_are_turned_away_are_counted():
    found = measure_load(Model(0.05, room=2), ["a"], rate=200, seconds=0.5)
    assert found.turned_away > 60
    assert found.p99_ms < 300


def test_a_service_that_answers_nothing_has_no_latency():
    found = measure_load(Model(0.05, room=0), ["a"], rate=50, seconds=0.2)
    assert (found.served, found.turned_away) == (0, 10)
    assert found.p50_ms is found.p99_ms is None


def test_every_text_is_another_one():
    model = Model(0.0)
    measure_load(model, ["a", ("b", "c")], rate=200, seconds=0.5)
    assert len(set(model.asked)) == len(model.asked) > 90
    assert {type(text) for text in model.asked} == {str, tuple}


def test_arrivals_are_the_same_for_the_same_seed():
    models = [Model(0.0) for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        measure_load(model, ["a", "b", "c", "d"], rate=2000, seconds=0.05, seed=seed)
    assert models[0].asked == models[1].asked != models[2].asked


def test_a_bundle_under_load(classifier_bundle):
    with encort.load(classifier_bundle) as model:
        found = measure_load(model, ["hello", "my card is lost"], rate=100, seconds=0.5)
        assert model.stats().texts > 20
    assert found.turned_away == 0
    assert found.queue_ms >= 0
