"""Schedulers over fake sessions, and models that serve."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import encort
from encort.runtime.bundle.manifest import Layout
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, MakeEngine, batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums


@pytest.fixture
def make_scheduler(make_engine: MakeEngine) -> MakeScheduler:
    """`make_scheduler(threads=2, max_wait_s=0.1, queue_tokens=1000)` returns a scheduler with an engine of its own."""

    def make(*, max_wait_s: float = 0, queue_tokens: int = 100_000, **options: Any) -> Scheduler:
        return Scheduler(make_engine(**options), max_wait_s=max_wait_s, queue_tokens=queue_tokens)

    return make


@pytest.fixture
def scheduler(make_scheduler: MakeScheduler) -> Scheduler:
    """Return a scheduler with one thread."""
    return make_scheduler()


@pytest.fixture
def busy(fakes: Fakes, scheduler: Scheduler) -> Iterator[Scheduler]:
    """A scheduler whose only thread runs the text `[1]` until `fakes.release()`. That run is `fakes.runs[0]`."""
    yield from occupied(fakes, scheduler)


@pytest.fixture
def busy_ragged(fakes: Fakes, make_scheduler: MakeScheduler) -> Iterator[Scheduler]:
    """`busy`, with a graph that takes rows of mixed lengths."""
    yield from occupied(fakes, make_scheduler(layout=Layout.RAGGED))


def occupied(fakes: Fakes, scheduler: Scheduler) -> Iterator[Scheduler]:
    fakes.hold(1)
    running = scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=1)
    yield scheduler
    fakes.release()
    assert sums(running) == expected_sums(1)


@pytest.fixture(scope="session")
def all_tasks(multi_head: Path) -> Iterator[encort.Model]:
    """A model with a head for every task."""
    with encort.load(multi_head, threads=2) as model:
        yield model


@pytest.fixture
def fresh_model(classifier_bundle: Path) -> Iterator[encort.Model]:
    """A model with two threads that has done nothing yet."""
    with encort.load(classifier_bundle, threads=2) as model:
        yield model


@pytest.fixture
def single(classifier_bundle: Path) -> Iterator[encort.Model]:
    """A model with one thread that has done nothing yet."""
    with encort.load(classifier_bundle, threads=1) as model:
        yield model
