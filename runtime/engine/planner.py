"""From lengths to micro-batches: which rows share one run of the graph."""

import heapq
import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from encort.runtime.common.arrays import Int64Array
from encort.runtime.engine.costs import Costs

TOKENS_PER_RUN = 256
"""Most tokens of a run of several rows. Larger runs are not faster, and they need more memory."""

SIZES = (1, 16, 32, 64, 128, TOKENS_PER_RUN)
"""Sizes of a run in tokens that the planner tries on cores."""


@dataclass(frozen=True, kw_only=True)
class ExecutionSlots:
    """Number and size of the micro-batches that cores or devices run.

    Attributes:
        parallel: Micro-batches that run at the same time.
        in_flight: Micro-batches that are submitted at the same time. Some run, the others are ready when a run ends.
        sizes: Sizes of a run in tokens that the planner tries, in ascending order.
        max_padded_tokens: Most rows of a run times its longest row. Steps that work per text pad packed tokens.
    """

    parallel: int
    in_flight: int
    sizes: Sequence[int] = SIZES
    max_padded_tokens: float = math.inf

    @classmethod
    def of_cores(cls, threads: int) -> "ExecutionSlots":
        """Return one slot per core. As many micro-batches are submitted, so that other callers get their turn."""
        return cls(parallel=threads, in_flight=threads)

    @property
    def tokens(self) -> int:
        """Most tokens of a run of several rows."""
        return self.sizes[-1]


def plan(lengths: Int64Array, slots: ExecutionSlots, *, costs: Costs, mixed: bool) -> list[Int64Array]:
    """Group rows into micro-batches of equal length, or of mixed lengths where only attention sees the padding.

    The planner tries several sizes of micro-batches and takes the plan with the smallest makespan.

    >>> [batch.tolist() for batch in plan(np.array([3, 9, 3]), ExecutionSlots.of_cores(1), costs=Costs(), mixed=False)]
    [[1], [0, 2]]

    Args:
        lengths: Tokens of each row, `(n,)` int64.
        slots: Cores or devices that run the micro-batches.
        costs: Cost model of a run.
        mixed: Whether rows of different lengths may share a run.

    Returns:
        Indices of rows, each index in exactly one micro-batch. The longest rows come first, because a long run that
        starts last would leave the other workers idle.
    """
    if len(lengths) <= 1:
        return [np.arange(1)] * len(lengths)
    order = np.argsort(-lengths, kind="stable")
    rows = _SortedRows(negative=(-lengths[order]).tolist(), totals=[0, *np.cumsum(lengths[order]).tolist()])
    split = _split_mixed if mixed else _split_equal
    candidates = [split(rows, size, costs, slots.max_padded_tokens) for size in slots.sizes]
    best = min(candidates, key=lambda starts: makespan(rows.seconds(starts, costs), workers=slots.parallel))
    return [order[start:end] for start, end in itertools.pairwise([*best, len(order)])]


def makespan(seconds: Iterable[float], *, workers: int) -> float:
    """Return the seconds until the last worker is done, if each takes the next micro-batch as soon as it is free.

    Args:
        seconds: Duration of each micro-batch, in the order in which they are taken.
        workers: Number of workers.
    """
    free_at = [0.0] * workers
    for duration in seconds:
        heapq.heapreplace(free_at, free_at[0] + duration)
    return max(free_at)


@dataclass(frozen=True)
class _SortedRows:
    """Rows in order of falling length. A plan is the list of the rows where its micro-batches start.

    Attributes:
        negative: Negated lengths, which ascend as `bisect` needs them.
        totals: Tokens before each row, and at the end the tokens of all rows.
    """

    negative: Sequence[int]
    totals: Sequence[int]

    def seconds(self, starts: Sequence[int], costs: Costs) -> Iterator[float]:
        """Yield the estimated duration of each micro-batch of a plan."""
        for start, end in itertools.pairwise([*starts, len(self.negative)]):
            yield costs.estimate(end - start, self.totals[end] - self.totals[start], -self.negative[start])


def _split_equal(rows: _SortedRows, size: int, *_: object) -> list[int]:
    """Split rows of each length into the fewest micro-batches of at most `size` tokens, of nearly equal size."""
    starts: list[int] = []
    start = 0
    while start < len(rows.negative):
        end = bisect_right(rows.negative, rows.negative[start], lo=start)
        rows_per_run = max(1, size // max(1, -rows.negative[start]))
        runs = math.ceil((end - start) / rows_per_run)
        starts += [start + (end - start) * run // runs for run in range(runs)]
        start = end
    return starts


def _split_mixed(rows: _SortedRows, size: int, costs: Costs, max_padded_tokens: float) -> list[int]:
    """Put rows of similar length together, up to `size` tokens, while sharing a run saves more than padding costs."""
    starts: list[int] = []
    start = 0
    while start < len(rows.negative):
        starts.append(start)
        longest = -rows.negative[start]
        fits_tokens = bisect_right(rows.totals, rows.totals[start] + size, lo=start) - 1
        worth_padding = bisect_right(rows.negative, -costs.min_length_to_batch(longest), lo=start)
        fits_padded = start + max_padded_tokens / max(1, longest)
        start = max(start + 1, int(min(fits_tokens, worth_padding, fits_padded)))
    return starts
