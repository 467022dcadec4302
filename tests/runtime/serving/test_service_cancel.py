"""A cancelled asyncio task takes its text out of the queue."""

import asyncio
import threading
from typing import Any

import pytest

import encort
from tests.runtime.fakes import hold_runs
from tests.runtime.serving.helpers import LONG, wait_for_event, wait_until


def test_a_cancelled_task_takes_its_text_out_of_the_queue(single: encort.Model) -> None:
    async def cancel_a_queued_text() -> None:
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await wait_for_event(started)
            cancelled = asyncio.create_task(service.embed("my card", timeout_s=30))
            await wait_until(lambda: single.stats().queued_tokens == 4)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            assert (single.stats().queued_tokens, single.stats().expired) == (0, 1)
            release.set()
            assert (await running).shape == (40,)

    with hold_runs(single) as (started, release):
        asyncio.run(cancel_a_queued_text())
    assert single.stats().texts == 1


def test_a_task_that_is_cancelled_while_a_thread_tokenizes_queues_nothing(
    single: encort.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizing, may_tokenize, tokenized = threading.Event(), threading.Event(), threading.Event()

    async def cancel_a_long_text() -> None:
        async with single.serving() as service:
            running = asyncio.create_task(service.embed("hello"))
            await wait_for_event(started)
            pool: Any = single._tokenizer
            tokenize = pool._tokenize

            def tokenize_later(*arguments: Any, **options: Any) -> Any:
                tokenizing.set()
                assert may_tokenize.wait(30)
                try:
                    return tokenize(*arguments, **options)
                finally:
                    tokenized.set()

            monkeypatch.setattr(pool, "_tokenize", tokenize_later)
            cancelled = asyncio.create_task(service.embed(LONG))
            await wait_for_event(tokenizing)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            may_tokenize.set()
            await wait_for_event(tokenized)
            try:
                await wait_until(lambda: single.stats().queued_tokens == 0, timeout_s=0.5)
            finally:
                release.set()
            assert (await running).shape == (40,)

    with hold_runs(single) as (started, release):
        asyncio.run(cancel_a_long_text())
    assert single.stats().texts == 1
