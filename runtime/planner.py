"""Lengths to micro-batches: which rows share one graph run."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from encort.runtime.costs import Costs
from encort.runtime.tokens import Int64Array

TOKENS_PER_RUN = 256
"""Most tokens of a run of several rows: beyond it nothing gets faster, and memory grows."""

SIZES = (1, 16, 32, 64, 128, TOKENS_PER_RUN)
"""Tokens a run that a plan for cores is tried with."""


@dataclass(frozen=True, kw_only=True)
class Lanes:
    """What runs micro-batches: cores, or devices.

    Attributes:
        at_once: Micro-batches that run at the same time.
        begun: Those that may be begun at the same time: some run, the others are ready when one is done.
        sizes: Tokens a run that a plan is tried with, the most at last.
        places: Most rows of a run times the longest: what is made of packed tokens for each text is padded.
    """

    at_once: int
    begun: int
    sizes: Sequence[int] = SIZES
    places: float = math.inf

    @classmethod
    def of_cores(cls, threads: int) -> "Lanes":
        """One micro-batch a core, and as many in line, for others to get their turn."""
        return cls(at_once=threads, begun=threads)

    @property
    def tokens(self) -> int:
        """Most tokens of a run of several rows."""
        return self.sizes[-1]


def plan(lengths: Int64Array, lanes: Lanes, *, costs: Costs, mixed: bool) -> list[Int64Array]:
    """Group rows into micro-batches: of equal length, or mixed, where only attention sees the padding.

    Of several sizes of micro-batches the one is taken whose last worker is done first.

    >>> [batch.tolist() for batch in plan(np.array([3, 9, 3]), Lanes.of_cores(1), costs=Costs(), mixed=False)]
    [[1], [0, 2]]

    Args:
        lengths: `(n,)` int64, tokens of each row.
        lanes: What runs them.
        costs: What they cost.
        mixed: Rows of different lengths may share a run.

    Returns:
        Indices of rows, each index in exactly one micro-batch; the longest rows first, because a long run
        that starts last would leave the other workers idle.
    """
    if len(lengths) <= 1:
        return [np.arange(1)] * len(lengths)
    order = np.argsort(-lengths, kind="stable")
    cut = _mixed if mixed else _equal
    plans = [list(cut(order, lengths, size, costs, lanes.places)) for size in lanes.sizes]
    return min(plans, key=lambda micro_batches: makespan(micro_batches, lengths, workers=lanes.at_once, costs=costs))


def makespan(micro_batches: Sequence[Int64Array], lengths: Int64Array, *, workers: int, costs: Costs) -> float:
    """Seconds until the last worker is done, if each takes the next micro-batch as soon as it is free."""
    free = [0.0] * workers
    for batch in micro_batches:
        heapq.heapreplace(free, free[0] + costs.seconds(lengths[batch]))
    return max(free)


def _equal(order: Int64Array, lengths: Int64Array, size: int, *_: object) -> Iterator[Int64Array]:
    """Rows of one length in the fewest near-equal micro-batches of at most `size` tokens."""
    for group in np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1):
        rows = max(1, size // max(1, int(lengths[group[0]])))
        yield from np.array_split(group, math.ceil(len(group) / rows))


def _mixed(order: Int64Array, lengths: Int64Array, size: int, costs: Costs, places: float) -> Iterator[Int64Array]:
    """Rows of similar length, at most `size` tokens a run, while sharing it saves more than padding costs."""
    start, tokens = 0, 0
    for stop, length in enumerate(lengths[order].tolist()):
        longest = int(lengths[order[start]])
        is_worth = costs.run >= costs.padding(length, longest)
        has_room = tokens + length <= size and (stop - start + 1) * longest <= places
        if stop > start and not (has_room and is_worth):
            yield order[start:stop]
            start, tokens = stop, 0
        tokens += length
    yield order[start:]
