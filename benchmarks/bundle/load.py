"""Open-loop load: texts arrive when they arrive, whether or not the service keeps up.

Arrivals are a Poisson process. A text's latency counts from when it was due, not from when the loop got to it, so that
a stalled service is not measured as a fast one (coordinated omission, Tene 2013).
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from encort.benchmarks.results import Load
from encort.runtime.common.errors import InputTooLongError, OverloadedError
from encort.runtime.model import Model
from encort.runtime.serving.service import AsyncService
from encort.runtime.text.token_batch import Text


def measure_load(model: Model, texts: Sequence[Text], *, rate: float, seconds: float, seed: int = 13) -> Load:
    """Offer texts at a rate for a while, through the queue for concurrent callers.

    Every text comes with a number at its end: equal ones in flight would be run once.

    Args:
        rate: Texts a second.
        seconds: How long they come.
    """
    return asyncio.run(_offer(model, texts, rate=rate, seconds=seconds, seed=seed))


async def _offer(model: Model, texts: Sequence[Text], *, rate: float, seconds: float, seed: int) -> Load:
    draw = np.random.default_rng(seed)
    due = np.cumsum(draw.exponential(1 / rate, max(1, round(rate * seconds)))).tolist()
    chosen = [_numbered(texts[text], number) for number, text in enumerate(draw.integers(len(texts), size=len(due)))]
    async with model.serving() as service:
        await service.predict(texts[0])
        before, begin = model.stats().queue_seconds, time.perf_counter()
        waiting = []
        for at, text in zip(due, chosen, strict=True):
            await asyncio.sleep(begin + at - time.perf_counter())
            waiting.append(asyncio.create_task(_one(service, text, begin + at)))
        latencies = await asyncio.gather(*waiting)
        took = time.perf_counter() - begin
    queue = model.stats().queue_seconds
    served = [latency for latency in latencies if latency is not None]
    p50, p99 = (1e3 * np.percentile(served, [50, 99])).tolist() if served else (None, None)
    return Load(
        offered=rate,
        served=len(served) / took,
        turned_away=len(latencies) - len(served),
        p50_ms=p50,
        p99_ms=p99,
        queue_ms=1e3 * (queue.sum - before.sum) / max(1, queue.count - before.count),
    )


def _numbered(text: Text, number: int) -> Text:
    return f"{text} {number}" if isinstance(text, str) else (text[0], f"{text[1]} {number}")


async def _one(service: AsyncService, text: Text, due: float) -> float | None:
    """Seconds from when it was due until its result; None if the queue had no room for it."""
    try:
        await service.predict(text)
    except (InputTooLongError, OverloadedError):
        return None
    return time.perf_counter() - due
