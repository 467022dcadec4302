"""Latency of calls of one shape, one after the other."""

import itertools
import math
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
    """Time calls of every shape in every system, shapes with few tokens first.

    Each shape may take an equal share of the time that is left. A shape whose single call would take longer than all of
    it is left out.

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
    shapes = sorted(itertools.product(TEXTS_PER_CALL, lengths), key=math.prod)
    cells = [(texts, tokens, name) for texts, tokens in shapes for name in systems]
    latencies, end = [], time.perf_counter() + seconds
    for number, (texts, tokens, name) in enumerate(cells):
        left = end - time.perf_counter()
        if texts * tokens * token_seconds[name] > left:
            continue
        show(f"{name}, {texts} x {tokens} tokens")
        call = [cutter.cut(tokens)] * texts
        timed = _time_calls(systems[name], call, seconds=min(SHAPE_SECONDS, left / (len(cells) - number)))
        latencies.append(_latency(name, texts, cutter.count_tokens(call[0]), timed))
    return sorted(latencies, key=lambda latency: (latency.texts, latency.tokens))


def _time_calls(run: Run, call: Sequence[Text], *, seconds: float) -> list[float]:
    """Return the seconds of as many calls as fit; the first call counts only where there is no other."""
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
