"""Open-loop load: texts arrive when they arrive, whether or not the service keeps up.

Arrivals are a Poisson process. A text's latency counts from when it was due, not from when the loop got to it, so that
a stalled service is not measured as a fast one (coordinated omission, Tene 2013).
"""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from encort.benchmarks.results import Load
from encort.runtime.errors import OverloadedError
from encort.runtime.model import Model
from encort.runtime.serving import AsyncService
from encort.runtime.tokens import Text


def measure_load(
    model: Model, texts: Sequence[Text], *, rate: float, seconds: float, max_wait_ms: float = 0, seed: int = 13
) -> Load:
    """Offer texts at a rate for a while, through the queue for concurrent callers.

    Args:
        rate: Texts a second.
        seconds: How long they come.
    """
    return asyncio.run(_offer(model, texts, rate=rate, seconds=seconds, max_wait_ms=max_wait_ms, seed=seed))


async def _offer(
    model: Model, texts: Sequence[Text], *, rate: float, seconds: float, max_wait_ms: float, seed: int
) -> Load:
    draw = np.random.default_rng(seed)
    due = np.cumsum(draw.exponential(1 / rate, max(1, round(rate * seconds))))
    chosen = draw.integers(len(texts), size=len(due))
    async with model.serving(max_wait_ms=max_wait_ms) as service:
        await service.predict(texts[0])
        before = model.stats().queue_seconds
        begin = time.perf_counter()
        latencies = await asyncio.gather(
            *(_one(service, texts[text], begin + at) for text, at in zip(chosen, due.tolist(), strict=True))
        )
        took = time.perf_counter() - begin
    queue = model.stats().queue_seconds
    served = [latency for latency in latencies if latency is not None]
    p50, p99 = (1e3 * np.percentile(served, [50, 99])).tolist() if served else (float("inf"), float("inf"))
    return Load(
        offered=rate,
        served=len(served) / took,
        overloaded=len(latencies) - len(served),
        p50_ms=p50,
        p99_ms=p99,
        queue_ms=1e3 * (queue.sum - before.sum) / max(1, queue.count - before.count),
    )


async def _one(service: AsyncService, text: Text, due: float) -> float | None:
    """Seconds from when it was due until its result; None if the queue was full."""
    await asyncio.sleep(due - time.perf_counter())
    try:
        await service.predict(text)
    except OverloadedError:
        return None
    return time.perf_counter() - due
