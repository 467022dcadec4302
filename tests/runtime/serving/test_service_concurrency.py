"""Many concurrent callers of one model: each gets its own result or an error, and the counts add up."""

import asyncio
import dataclasses
import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

import encort
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import DeadlineError, OverloadedError
from encort.runtime.engine.stats import Stats
from encort.runtime.serving.async_service import AsyncService
from encort.runtime.serving.service import Service
from encort.runtime.tasks.results import Classification
from tests.runtime.serving.helpers import assert_same, different_texts

THREADS = 64
CALLS = 25


def assert_counts_add_up(stats: Stats, *, calls: int, overloads: int) -> None:
    """Check the counts of calls of one row each."""
    assert stats.queued_tokens == 0
    assert stats.overloads == overloads
    assert stats.texts + stats.shared + stats.expired == calls - overloads
    assert stats.queue_seconds.count == stats.texts
    assert stats.failures == 0


def outcome_of_a_call(service: Service, texts: Sequence[str], expected: FloatArray, chance: random.Random) -> str:
    """Embed one of the texts, sometimes with a very short timeout."""
    index = chance.randrange(len(texts))
    timeout_s = chance.choice([None, 30, 30, chance.uniform(1e-6, 0.01)])
    try:
        embedding = service.embed(texts[index], timeout_s=timeout_s)
    except (DeadlineError, OverloadedError) as error:
        return type(error).__name__
    np.testing.assert_allclose(embedding, expected[index], atol=1e-6)
    return "done"


def test_64_threads_get_their_own_results_or_an_error(fresh_model: encort.Model) -> None:
    texts = different_texts()
    expected = fresh_model.embed(texts)
    before = fresh_model.stats()
    together = threading.Barrier(THREADS)

    def call(seed: int) -> list[str]:
        chance = random.Random(seed)
        together.wait(30)
        return [outcome_of_a_call(service, texts, expected, chance) for _ in range(CALLS)]

    with ThreadPoolExecutor(THREADS) as pool, fresh_model.serving(queue_tokens=600) as service:
        outcomes = [outcome for outcomes in pool.map(call, range(THREADS)) for outcome in outcomes]
    stats = fresh_model.stats()
    assert len(outcomes) == THREADS * CALLS
    assert outcomes.count("done") > THREADS
    since = dataclasses.replace(stats, texts=stats.texts - before.texts)
    assert_counts_add_up(since, calls=len(outcomes), overloads=outcomes.count("OverloadedError"))


async def classify_1000_times(model: encort.Model, texts: Sequence[str]) -> list[Any]:
    """Classify random texts. Some calls have a very short timeout, and some tasks are cancelled.

    Returns:
        For each call `(index of the text, classification)`, or the error.
    """
    chance = random.Random(0)

    async def call(service: AsyncService, index: int, timeout_s: float | None) -> tuple[int, Classification]:
        return index, await service.classify(texts[index], timeout_s=timeout_s)

    async with model.serving(queue_tokens=100_000) as service:
        calls: list[asyncio.Task[tuple[int, Classification]]] = []
        for number in range(1000):
            timeout_s = chance.choice([None, 30, 30, chance.uniform(1e-6, 0.05)])
            calls.append(asyncio.create_task(call(service, chance.randrange(len(texts)), timeout_s)))
            if number % 7 == 0:
                await asyncio.sleep(0)
            if number % 5 == 0:
                chance.choice(calls).cancel()
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 60)


def test_1000_asyncio_calls_get_their_own_results_or_an_error(fresh_model: encort.Model) -> None:
    texts = different_texts()
    expected = fresh_model.classify(texts)
    before = fresh_model.stats()
    outcomes = asyncio.run(classify_1000_times(fresh_model, texts))
    errors = {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)}
    assert errors <= {DeadlineError, asyncio.CancelledError}
    assert asyncio.CancelledError in errors
    done = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert (len(outcomes), len(done) > 100) == (1000, True)
    for index, result in done:
        assert_same(result, expected[index])
    stats = fresh_model.stats()
    accepted = stats.texts - before.texts + stats.shared + stats.expired
    assert len(done) <= accepted <= 1000
    assert (stats.queued_tokens, stats.overloads, stats.failures) == (0, 0, 0)


def test_threads_asyncio_and_whole_lists_share_one_model(fresh_model: encort.Model) -> None:
    texts = different_texts()
    expected = fresh_model.embed(texts)

    async def embed_all() -> list[FloatArray]:
        async with fresh_model.serving(max_wait_ms=1) as service:
            return await asyncio.gather(*(service.embed(text) for text in texts * 3))

    with ThreadPoolExecutor(12) as pool, fresh_model.serving() as service:
        by_asyncio = pool.submit(asyncio.run, embed_all())
        by_lists = [pool.submit(fresh_model.embed, texts) for _ in range(2)]
        by_threads = [pool.submit(service.embed, text) for text in texts * 3]
        np.testing.assert_allclose(by_asyncio.result(60), np.tile(expected, (3, 1)), atol=1e-6)
        np.testing.assert_allclose([one.result(60) for one in by_threads], np.tile(expected, (3, 1)), atol=1e-6)
        for embeddings in by_lists:
            np.testing.assert_allclose(embeddings.result(60), expected, atol=1e-6)
    assert fresh_model.stats().queued_tokens == 0
