"""Counts and timings of a model since it was loaded."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

from encort.runtime.common.forks import new_lock

BOUNDS = tuple(round(step * 10.0**power, 9) for power in range(-4, 2) for step in (1, 2, 5))
"""Upper bounds of the buckets of every histogram in seconds: 100 microseconds to 50 seconds."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """Histogram of durations.

    Attributes:
        bounds: Upper bounds of the buckets in seconds. One more bucket has no upper bound.
        counts: Observations in each bucket.
        sum: Sum of all observations in seconds.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def count(self) -> int:
        """Number of observations."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the least bound that covers a share of the observations, in seconds; 0 without observations.

        >>> Histogram(bounds=(0.1, 0.2), counts=(9, 1, 0), sum=1.0).quantile(0.5)
        0.1

        Args:
            share: From 0 to 1; 0.99 is the 99th percentile.
        """
        wanted, seen = share * self.count * (1 - 1e-12), 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Counts and timings since a model was loaded.

    Attributes:
        texts: Texts that were run. A window counts as a text.
        tokens: Tokens of these texts.
        padding: Padding tokens that were run beside them.
        truncated: Texts that were cut at the limit.
        runs: Micro-batches that were run.
        failures: Micro-batches that ended with an error.
        overloads: Calls that a full queue refused.
        expired: Texts that were dropped before their run, because their callers cancelled or their deadlines passed.
        shared: Texts that were not run, because the same text was queued or running already.
        queued_tokens: Tokens that wait in queues now.
        queue_seconds: Time that texts waited in a queue.
        run_seconds: Duration of micro-batches.
        tokenize_seconds: Duration of tokenization, of one text or of many at a time.
    """

    texts: int
    tokens: int
    padding: int
    truncated: int
    runs: int
    failures: int
    overloads: int
    expired: int
    shared: int
    queued_tokens: int
    queue_seconds: Histogram
    run_seconds: Histogram
    tokenize_seconds: Histogram


class StatsSource(Protocol):
    """Something that counts: a `Model`, or a fake of it."""

    def stats(self) -> Stats:
        """Return what was done so far."""


TIMES = ("queue_seconds", "run_seconds", "tokenize_seconds")
"""Fields of `Stats` that are histograms."""
GAUGES = ("queued_tokens",)
"""Fields of `Stats` that go up and down. All other fields only grow."""
_COUNTS = tuple(field.name for field in fields(Stats) if field.name not in TIMES)


class Recorder:
    """Collects counts and timings from any thread."""

    def __init__(self) -> None:
        """Start at zero."""
        self._lock = new_lock()
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._sums = dict.fromkeys(TIMES, 0.0)
        self._buckets = {name: [0] * (len(BOUNDS) + 1) for name in TIMES}

    def count(self, **amounts: int) -> None:
        """Add amounts to counts. Names are the fields of `Stats`."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Add one observation to a histogram. The name is a field of `Stats`."""
        with self._lock:
            self._sums[name] += seconds
            self._buckets[name][bisect_left(BOUNDS, seconds)] += 1

    def stats(self) -> Stats:
        """Return the counts and timings so far."""
        with self._lock:
            times = {
                name: Histogram(bounds=BOUNDS, counts=tuple(self._buckets[name]), sum=self._sums[name])
                for name in TIMES
            }
            values: dict[str, Any] = {**self._counts, **times}
            return Stats(**values)
