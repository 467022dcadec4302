"""Open-loop load: texts arrive at their own times, whether or not the service keeps up.

Arrivals are a Poisson process. The latency of a text counts from the time when it was due, not from the time when the
loop sent it. Otherwise a stalled service would look fast (coordinated omission, Tene 2013).
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from encort.benchmarks.bundle.report import LoadTest
from encort.runtime.common.errors import InputTooLongError, OverloadedError
from encort.runtime.model import Model
from encort.runtime.serving.async_service import AsyncService
from encort.runtime.text.token_batch import Text


def measure_load(model: Model, texts: Sequence[Text], *, rate: float, seconds: float, seed: int = 13) -> LoadTest:
    """Offer texts to the service at a rate, and measure latencies.

    Every text gets a number at its end, since the service runs equal texts in flight only once.

    Args:
        model: Model that serves.
        texts: Texts to draw from.
        rate: Texts per second.
        seconds: How long texts arrive.
        seed: Seed of arrivals and texts.
    """
    return asyncio.run(_offer(model, texts, rate=rate, seconds=seconds, seed=seed))


async def _offer(model: Model, texts: Sequence[Text], *, rate: float, seconds: float, seed: int) -> LoadTest:
    draw = np.random.default_rng(seed)
    arrivals = np.cumsum(draw.exponential(1 / rate, max(1, round(rate * seconds)))).tolist()
    chosen = draw.integers(len(texts), size=len(arrivals))
    numbered = [_with_number(texts[index], number) for number, index in enumerate(chosen)]
    async with model.serving() as service:
        await service.predict(texts[0])
        before, start = model.stats().queue_seconds, time.perf_counter()
        requests = []
        for arrival, text in zip(arrivals, numbered, strict=True):
            await asyncio.sleep(start + arrival - time.perf_counter())
            requests.append(asyncio.create_task(_latency(service, text, due=start + arrival)))
        latencies = await asyncio.gather(*requests)
        total = time.perf_counter() - start
    queue = model.stats().queue_seconds
    served = [latency for latency in latencies if latency is not None]
    p50, p99 = (1e3 * np.percentile(served, [50, 99])).tolist() if served else (None, None)
    return LoadTest(
        offered=rate,
        served=len(served) / total,
        refused=len(latencies) - len(served),
        p50_ms=p50,
        p99_ms=p99,
        queue_ms=1e3 * (queue.sum - before.sum) / max(1, queue.count - before.count),
    )


def _with_number(text: Text, number: int) -> Text:
    return f"{text} {number}" if isinstance(text, str) else (text[0], f"{text[1]} {number}")


async def _latency(service: AsyncService, text: Text, *, due: float) -> float | None:
    """Return the seconds from the due time to the result; None if the queue refused the text."""
    try:
        await service.predict(text)
    except (InputTooLongError, OverloadedError):
        return None
    return time.perf_counter() - due
