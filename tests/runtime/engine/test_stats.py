"""Counts and histograms, by themselves and in a model."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import encort
from encort.runtime.common.errors import OverloadedError
from encort.runtime.engine.stats import BOUNDS, Histogram, Recorder, Stats
from tests.runtime.fakes import hold_runs

TIMES = ["queue_seconds", "run_seconds", "tokenize_seconds"]
COUNTS = [field.name for field in dataclasses.fields(Stats) if field.name not in TIMES]
LONG = "card " * 200


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def model(classifier_bundle: Path) -> Iterator[encort.Model]:
    """A model that has done nothing yet."""
    with encort.load(classifier_bundle, threads=1) as model:
        yield model


def histogram(**counts_by_bucket: int) -> Histogram:
    """Return a histogram with counts by bucket number: `b3=2` for two observations in bucket 3."""
    counts = [0] * (len(BOUNDS) + 1)
    for bucket, count in counts_by_bucket.items():
        counts[int(bucket.removeprefix("b"))] = count
    return Histogram(bounds=BOUNDS, counts=counts, sum=0.0)


def test_bounds_are_1_2_5_from_100_microseconds_to_50_seconds() -> None:
    assert BOUNDS[:4] == (0.0001, 0.0002, 0.0005, 0.001)
    assert BOUNDS[-4:] == (5, 10, 20, 50)
    assert len(BOUNDS) == 18
    assert sorted(set(BOUNDS)) == list(BOUNDS)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.0001, 0), (0.00011, 1), (0.0002, 1), (0.3, 11), (0.5, 11), (50.0, 17), (50.1, 18), (1e9, 18)],
)
def test_an_observation_is_counted_in_the_first_bucket_that_holds_it(
    recorder: Recorder, seconds: float, bucket: int
) -> None:
    recorder.observe("run_seconds", seconds)
    run_seconds = recorder.stats().run_seconds
    assert [index for index, count in enumerate(run_seconds.counts) if count] == [bucket]
    assert len(run_seconds.counts) == len(run_seconds.bounds) + 1


def test_a_histogram_has_the_count_and_the_sum_of_its_observations(recorder: Recorder) -> None:
    for seconds in (0.25, 0.5, 4.0):
        recorder.observe("queue_seconds", seconds)
    stats = recorder.stats()
    assert (stats.queue_seconds.count, stats.queue_seconds.sum) == (3, 4.75)
    assert (stats.run_seconds.count, stats.tokenize_seconds.count, stats.run_seconds.sum) == (0, 0, 0)


@pytest.mark.parametrize(
    ("share", "bound"), [(0.0, 0.0002), (0.25, 0.0002), (0.5, 0.0002), (0.51, 50), (0.75, 50), (0.8, float("inf"))]
)
def test_a_quantile_is_the_least_bound_that_covers_the_share(share: float, bound: float) -> None:
    assert histogram(b1=2, b17=1, b18=1).quantile(share) == bound


def test_the_last_quantile_is_the_largest_bound_with_observations() -> None:
    assert histogram(b0=5, b3=1).quantile(1.0) == BOUNDS[3]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_quantile_without_observations_is_zero(share: float) -> None:
    assert histogram().quantile(share) == 0


def test_a_new_recorder_has_counted_nothing(recorder: Recorder) -> None:
    stats = recorder.stats()
    assert {name: getattr(stats, name) for name in COUNTS} == dict.fromkeys(COUNTS, 0)
    assert {getattr(stats, name).count for name in TIMES} == {0}


def test_counts_add_up_and_may_go_down(recorder: Recorder) -> None:
    recorder.count(texts=2, tokens=9)
    recorder.count(texts=1, queued_tokens=7)
    recorder.count(queued_tokens=-3)
    stats = recorder.stats()
    assert (stats.texts, stats.tokens, stats.queued_tokens) == (3, 9, 4)


def test_an_unknown_count_is_refused(recorder: Recorder) -> None:
    with pytest.raises(KeyError):
        recorder.count(txets=1)


def test_stats_do_not_change_later(recorder: Recorder) -> None:
    recorder.count(texts=1)
    before = recorder.stats()
    recorder.count(texts=1)
    recorder.observe("run_seconds", 1.0)
    assert (before.texts, before.run_seconds.count) == (1, 0)


def test_counts_of_many_threads_are_complete(recorder: Recorder) -> None:
    threads, times = 16, 500
    together = threading.Barrier(threads)

    def work(_: int) -> None:
        together.wait(30)
        for _ in range(times):
            recorder.count(texts=1, tokens=3)
            recorder.observe("run_seconds", 0.5)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    stats, total = recorder.stats(), threads * times
    assert (stats.texts, stats.tokens, stats.run_seconds.count) == (total, 3 * total, total)
    assert stats.run_seconds.sum == total / 2


def test_a_model_counts_texts_tokens_and_truncated_texts(model: encort.Model) -> None:
    model.embed(["hello", "my card", LONG, LONG])
    stats = model.stats()
    assert (stats.texts, stats.tokens, stats.truncated) == (4, 3 + 4 + 64 + 64, 2)
    assert stats.runs == stats.run_seconds.count >= 3
    assert stats.tokenize_seconds.count == 1
    assert (stats.padding, stats.failures, stats.queued_tokens, stats.queue_seconds.count) == (0, 0, 0, 0)


def test_windows_count_as_texts_that_are_not_truncated(model: encort.Model) -> None:
    batch = model.tokenize([LONG], overflow="window")
    model.embed(batch)
    stats = model.stats()
    assert (stats.texts, stats.tokens, stats.truncated) == (len(batch), len(batch.ids), 0)


def test_a_service_counts_truncated_texts(model: encort.Model) -> None:
    with model.serving() as service:
        service.embed(LONG)
    assert model.stats().truncated == 1


def test_a_service_counts_shared_refused_and_expired_texts(model: encort.Model) -> None:
    with (
        hold_runs(model) as (started, release),
        ThreadPoolExecutor(3) as pool,
        model.serving(queue_tokens=64) as service,
    ):
        running = pool.submit(service.embed, "hello")
        assert started.wait(10)
        shared = pool.submit(service.embed, "hello")
        with pytest.raises(TimeoutError):
            service.embed("my card", timeout_s=0.05)
        waiting = pool.submit(service.embed, LONG)
        for _ in range(2000):
            if model.stats().queued_tokens == 64 and model.stats().shared == 1:
                break
            time.sleep(0.005)
        with pytest.raises(OverloadedError):
            service.embed("change my pin")
        release.set()
        for call in (running, shared, waiting):
            assert call.result(10).shape == (40,)
    stats = model.stats()
    assert (stats.texts, stats.shared, stats.overloads, stats.expired) == (2, 1, 1, 1)
    assert (stats.queued_tokens, stats.queue_seconds.count, stats.runs) == (0, 2, 2)
