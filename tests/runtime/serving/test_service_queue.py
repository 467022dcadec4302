"""The bounded queue of a service, and the options of `Model.serving`."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.common.errors import InputError, InputTypeError, OverloadedError
from tests.runtime.fakes import hold_runs
from tests.runtime.serving.helpers import LONG, wait_for_event, wait_until


def test_a_full_queue_refuses_new_texts_until_there_is_room(single: encort.Model) -> None:
    with (
        hold_runs(single) as (started, release),
        ThreadPoolExecutor(2) as pool,
        single.serving(queue_tokens=64) as service,
    ):
        running = pool.submit(service.embed, "hello")
        assert started.wait(10)
        queued = pool.submit(service.embed, LONG)
        asyncio.run(wait_until(lambda: single.stats().queued_tokens == 64))
        with pytest.raises(OverloadedError, match="64 tokens wait, and about 2 more"):
            service.embed("card")
        assert single.stats().overloads == 1
        release.set()
        assert running.result(10).shape == queued.result(10).shape == (40,)
        assert service.embed("card").shape == (40,)


TEXTS: list[Any] = ["card", LONG, ("my card", "is lost"), [5, 6], np.array([5, 6])]


def test_a_full_queue_refuses_before_tokenization(single: encort.Model) -> None:
    with (
        hold_runs(single) as (started, release),
        ThreadPoolExecutor(2) as pool,
        single.serving(queue_tokens=64) as service,
    ):
        calls = [pool.submit(service.embed, "hello")]
        assert started.wait(10)
        calls.append(pool.submit(service.embed, LONG))
        asyncio.run(wait_until(lambda: single.stats().queued_tokens == 64))
        tokenized = single.stats().tokenize_seconds.count
        for text in TEXTS:
            with pytest.raises(OverloadedError, match="about"):
                service.embed(text)
        assert single.stats().tokenize_seconds.count == tokenized
        release.set()
        assert [call.result(10).shape for call in calls] == [(40,), (40,)]


def test_a_full_queue_of_an_async_service_refuses_before_tokenization(single: encort.Model) -> None:
    async def refuse() -> None:
        async with single.serving(queue_tokens=64) as service:
            calls = [asyncio.create_task(service.embed("hello"))]
            await wait_for_event(started)
            calls.append(asyncio.create_task(service.embed(LONG)))
            await wait_until(lambda: single.stats().queued_tokens == 64)
            tokenized = single.stats().tokenize_seconds.count
            for text in TEXTS:
                with pytest.raises(OverloadedError, match="about"):
                    await service.embed(text)
            assert single.stats().tokenize_seconds.count == tokenized
            release.set()
            assert [row.shape for row in await asyncio.gather(*calls)] == [(40,), (40,)]

    with hold_runs(single) as (started, release):
        asyncio.run(refuse())


def test_an_empty_queue_refuses_no_text_by_its_estimate(single: encort.Model) -> None:
    with single.serving(queue_tokens=64) as service:
        for text in (*TEXTS, "x" * 10_000, (LONG, LONG)):
            assert service.embed(text).shape == (40,)
        assert single.stats().overloads == 0


def test_the_queue_must_hold_the_longest_text(single: encort.Model) -> None:
    single.serving(queue_tokens=64)
    with pytest.raises(InputError, match="queue_tokens must be at least 64, one text; got 63"):
        single.serving(queue_tokens=63)


@pytest.mark.parametrize(("max_wait_ms", "shown"), [(-5, "-5"), (float("nan"), "nan"), (float("inf"), "inf")])
def test_max_wait_ms_must_be_finite_and_at_least_zero(single: encort.Model, max_wait_ms: float, shown: str) -> None:
    with pytest.raises(InputError, match=f"max_wait_ms must be a number of at least 0, got {shown}"):
        single.serving(max_wait_ms=max_wait_ms)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"queue_tokens": "x"}, "queue_tokens must be a whole number, got 'x'"),
        ({"queue_tokens": 100.0}, "queue_tokens must be a whole number"),
        ({"max_wait_ms": "2"}, "max_wait_ms must be a number, got '2'"),
        ({"max_wait_ms": None}, "max_wait_ms must be a number"),
    ],
)
def test_an_option_that_is_not_a_number_is_refused(single: encort.Model, option: dict[str, Any], message: str) -> None:
    with pytest.raises(InputTypeError, match=message):
        single.serving(**option)


def test_options_may_be_numpy_numbers(single: encort.Model) -> None:
    max_wait_ms: Any = np.float32(0.5)
    queue_tokens: Any = np.int32(64)
    with single.serving(max_wait_ms=max_wait_ms, queue_tokens=queue_tokens) as service:
        assert service.embed("hello").shape == (40,)
