"""Latency of calls of one shape, one after the other."""

import bisect
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from encort.benchmarks.bundle.inputs import TextCutter
from encort.benchmarks.bundle.report import Latency
from encort.benchmarks.timing import elapsed
from encort.runtime.text.token_batch import Text

TEXT_TOKENS = (8, 32, 128)
"""Tokens per text; the bundle's limit is added."""
TEXTS_PER_CALL = (1, 8, 32)
MAX_CALLS = 200
"""Most calls of one shape."""
SHAPE_SECONDS = 2.0
"""Most seconds for the calls of one shape in one system."""

Run = Callable[[Sequence[Text]], object]


def measure_calls(
    systems: Mapping[str, Run],
    cutter: TextCutter,
    *,
    token_seconds: Mapping[str, float],
    seconds: float,
    show: Callable[[str], None],
) -> list[Latency]:
    """Time calls of every shape in every system.

    Time is kept for one call of each, the cheapest first; those for which none is left are not measured. What is left
    over is for more calls, in equal shares.

    Args:
        systems: Functions that run texts, by name.
        cutter: Makes texts of a number of tokens.
        token_seconds: Seconds per token of each system, to know beforehand how long a call takes.
        seconds: Time for all calls.
        show: Called with the system and the shape before each measurement.

    Returns:
        One latency per shape and system.
    """
    lengths = {min(tokens, cutter.limit) for tokens in (*TEXT_TOKENS, cutter.limit)}
    cells = [
        (texts * tokens * token_seconds[name], texts, tokens, name)
        for texts, tokens, name in itertools.product(TEXTS_PER_CALL, lengths, systems)
    ]
    cells.sort()
    needed = list(itertools.accumulate(cost for cost, *_ in cells))
    count = bisect.bisect_right(needed, seconds)
    latencies, end = [], time.perf_counter() + seconds
    for number, (cost, texts, tokens, name) in enumerate(cells[:count]):
        show(f"{name}, {texts} x {tokens} tokens")
        spare = end - time.perf_counter() - (needed[count - 1] - needed[number] + cost)
        call = [cutter.cut(tokens)] * texts
        timed = _time_calls(systems[name], call, seconds=min(SHAPE_SECONDS, spare / (count - number)))
        latencies.append(_latency(name, texts, cutter.count_tokens(call[0]), timed))
    return sorted(latencies, key=lambda latency: (latency.texts, latency.tokens))


def _time_calls(run: Run, call: Sequence[Text], *, seconds: float) -> list[float]:
    """Return the seconds of the calls after the first that fit; those of the first if none does."""
    first = elapsed(run, call)
    return [elapsed(run, call) for _ in range(min(MAX_CALLS, int(seconds / first)))] or [first]


def _latency(system: str, texts: int, tokens: int, seconds: Sequence[float]) -> Latency:
    p50, p90, p99, slowest = (1e3 * np.percentile(seconds, [50, 90, 99, 100])).tolist()
    return Latency(
        system=system,
        calls=len(seconds),
        texts=texts,
        tokens=tokens,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=slowest,
    )
