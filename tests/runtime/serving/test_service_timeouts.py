"""`timeout_s`: a call without a result in time is a `DeadlineError`."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.common.errors import DeadlineError, InputError, InputTypeError
from tests.runtime.fakes import hold_runs
from tests.runtime.serving.helpers import wait_for_event

PIECES = "my card is lost, " * 4000
"""A text that is tokenized in tens of pieces."""


class SlowLibrary:
    """Wraps a tokenizer of the library: each of its calls takes 20 ms.

    Attributes:
        calls: Number of calls.
    """

    def __init__(self, inner: Any) -> None:
        self._inner, self.calls = inner, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode_batch(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        time.sleep(0.02)
        return self._inner.encode_batch(*arguments, **options)


@pytest.fixture
def slow(single: encort.Model) -> SlowLibrary:
    """Make the tokenizer of `single` slow."""
    backend: Any = single._tokenizer._tokenizer._backend
    backend.library = SlowLibrary(backend.library)
    library: SlowLibrary = backend.library
    return library


def assert_stopped_early(library: SlowLibrary, model: encort.Model) -> None:
    """Check that only a few pieces were tokenized, also a while later, and that nothing was run."""
    time.sleep(0.1)
    assert 1 <= library.calls < 20
    assert (model.stats().texts, model.stats().queued_tokens) == (0, 0)


def test_a_timeout_ends_the_tokenization_of_a_long_text(single: encort.Model, slow: SlowLibrary) -> None:
    with single.serving() as service, pytest.raises(DeadlineError, match="timeout_s"):
        service.embed(PIECES, overflow="window", timeout_s=0.05)
    assert_stopped_early(slow, single)


def test_a_timeout_of_an_async_call_ends_the_tokenization(single: encort.Model, slow: SlowLibrary) -> None:
    async def call() -> None:
        async with single.serving() as service:
            with pytest.raises(DeadlineError, match="timeout_s"):
                await service.embed(PIECES, overflow="window", timeout_s=0.05)

    asyncio.run(call())
    assert_stopped_early(slow, single)


def test_a_cancelled_task_ends_the_tokenization(single: encort.Model, slow: SlowLibrary) -> None:
    async def call() -> None:
        async with single.serving() as service:
            task = asyncio.create_task(service.embed(PIECES, overflow="window"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(call())
    assert_stopped_early(slow, single)


def test_a_call_without_a_result_in_time_is_a_timeout(single: encort.Model) -> None:
    with hold_runs(single) as (started, release), ThreadPoolExecutor(1) as pool, single.serving() as service:
        running = pool.submit(service.embed, "hello")
        assert started.wait(10)
        for text in ("my card", "hello"):
            with pytest.raises(TimeoutError, match="timeout_s") as raised:
                service.embed(text, timeout_s=0.02)
            assert type(raised.value) is DeadlineError
        release.set()
        assert running.result(10).shape == (40,)
    assert (single.stats().texts, single.stats().expired) == (1, 1)


def test_an_async_call_without_a_result_in_time_is_a_timeout(single: encort.Model) -> None:
    async def call_all() -> None:
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await wait_for_event(started)
            for text in ("my card", "hello"):
                with pytest.raises(TimeoutError, match="timeout_s") as raised:
                    await service.embed(text, timeout_s=0.02)
                assert type(raised.value) is DeadlineError
            release.set()
            assert (await running).shape == (40,)

    with hold_runs(single) as (started, release):
        asyncio.run(call_all())
    assert (single.stats().texts, single.stats().expired) == (1, 1)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), float("inf")])
def test_a_timeout_must_be_above_zero_and_finite(classifier: encort.Model, timeout_s: float) -> None:
    with classifier.serving() as service, pytest.raises(InputError, match="timeout_s must be a number above 0, got"):
        service.embed("hello", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", ["1", True, [1]])
def test_a_timeout_must_be_a_number(classifier: encort.Model, timeout_s: Any) -> None:
    with classifier.serving() as service, pytest.raises(InputTypeError, match="timeout_s must be a number, got"):
        service.embed("hello", timeout_s=timeout_s)


@pytest.mark.parametrize("timeout_s", [np.float32(30), np.float64(30), np.int64(30)])
def test_a_timeout_may_be_a_numpy_number(classifier: encort.Model, timeout_s: Any) -> None:
    with classifier.serving() as service:
        assert service.embed("hello", timeout_s=timeout_s).shape == (40,)
