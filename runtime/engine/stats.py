"""What a model has done so far: counts, and where the time went."""

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

BOUNDS = tuple(round(step * 10.0**power, 9) for power in range(-4, 2) for step in (1, 2, 5))
"""Upper bounds of the buckets of every histogram: 100 microseconds to 50 seconds."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often something took how long.

    Attributes:
        bounds: Upper bounds of the buckets in seconds; one more bucket has no bound.
        counts: Observations in each bucket.
        sum: Of all observations, in seconds.
    """

    bounds: Sequence[float]
    counts: Sequence[int]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """The bound that at least this share of the observations does not pass, in seconds; 0 without any."""
        wanted, seen = share * self.count * (1 - 1e-12), 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= wanted:
                return bound
        return 0.0


@dataclass(frozen=True, kw_only=True)
class Stats:
    """What a model has done since it was loaded.

    Attributes:
        texts: Texts that were run, windows counted as texts.
        tokens: Their tokens.
        padding: Tokens that were run beside them to fill rows up.
        truncated: Texts that were cut at the limit.
        runs: Micro-batches.
        failures: Micro-batches that ended in an error.
        overloads: Calls that a full queue turned away.
        expired: Texts dropped unread, because their callers had gone or their deadlines had passed.
        shared: Texts that were not run, because the same text was already on its way.
        queued_tokens: Tokens that wait in queues now.
        queue_seconds: How long texts waited in a queue.
        run_seconds: How long micro-batches ran.
        tokenize_seconds: How long threads took to turn texts into tokens, one text or many at a time.
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
"""Histograms among the fields of `Stats`."""
GAUGES = ("queued_tokens",)
"""Fields that go up and down; the others only grow."""
_COUNTS = tuple(field.name for field in fields(Stats) if field.name not in TIMES)


class Recorder:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(_COUNTS, 0)
        self._sums = dict.fromkeys(TIMES, 0.0)
        self._buckets = {name: [0] * (len(BOUNDS) + 1) for name in TIMES}

    def count(self, **amounts: int) -> None:
        """Add to counts, by their names in `Stats`."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def observe(self, name: str, seconds: float) -> None:
        """Add one observation to a histogram, by its name in `Stats`."""
        with self._lock:
            self._sums[name] += seconds
            self._buckets[name][bisect_left(BOUNDS, seconds)] += 1

    def stats(self) -> Stats:
        with self._lock:
            times = {
                name: Histogram(bounds=BOUNDS, counts=tuple(self._buckets[name]), sum=self._sums[name])
                for name in TIMES
            }
            values: dict[str, Any] = {**self._counts, **times}
            return Stats(**values)
