"""Lengths to micro-batches: which rows share one graph run."""

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
"""Most tokens of a run of several rows: beyond it nothing gets faster, and memory grows."""

SIZES = (1, 16, 32, 64, 128, TOKENS_PER_RUN)
"""Tokens a run that a plan for cores is tried with."""


@dataclass(frozen=True, kw_only=True)
class ExecutionSlots:
    """What runs micro-batches: cores, or devices.

    Attributes:
        parallel: Micro-batches that run at the same time.
        in_flight: Those that may be begun at the same time: some run, the others are ready when one is done.
        sizes: Tokens a run that a plan is tried with, the most at last.
        max_padded_tokens: Most rows of a run times the longest: what is made of packed tokens for each text is padded.
    """

    parallel: int
    in_flight: int
    sizes: Sequence[int] = SIZES
    max_padded_tokens: float = math.inf

    @classmethod
    def of_cores(cls, threads: int) -> "ExecutionSlots":
        """One micro-batch a core, and as many in line, for others to get their turn."""
        return cls(parallel=threads, in_flight=threads)

    @property
    def tokens(self) -> int:
        """Most tokens of a run of several rows."""
        return self.sizes[-1]


def plan(lengths: Int64Array, slots: ExecutionSlots, *, costs: Costs, mixed: bool) -> list[Int64Array]:
    """Group rows into micro-batches: of equal length, or mixed, where only attention sees the padding.

    Of several sizes of micro-batches the one is taken whose last worker is done first.

    >>> [batch.tolist() for batch in plan(np.array([3, 9, 3]), ExecutionSlots.of_cores(1), costs=Costs(), mixed=False)]
    [[1], [0, 2]]

    Args:
        lengths: `(n,)` int64, tokens of each row.
        slots: What runs them.
        costs: What they cost.
        mixed: Rows of different lengths may share a run.

    Returns:
        Indices of rows, each index in exactly one micro-batch; the longest rows first, because a long run
        that starts last would leave the other workers idle.
    """
    if len(lengths) <= 1:
        return [np.arange(1)] * len(lengths)
    order = np.argsort(-lengths, kind="stable")
    rows = _Rows(negative=(-lengths[order]).tolist(), totals=[0, *np.cumsum(lengths[order]).tolist()])
    cut = _mixed if mixed else _equal
    cuts = [cut(rows, size, costs, slots.max_padded_tokens) for size in slots.sizes]
    best = min(cuts, key=lambda begins: makespan(rows.seconds(begins, costs), workers=slots.parallel))
    return [order[begin:end] for begin, end in itertools.pairwise([*best, len(order)])]


def makespan(seconds: Iterable[float], *, workers: int) -> float:
    """Seconds until the last worker is done, if each takes the next micro-batch as soon as it is free.

    Args:
        seconds: Of each micro-batch, in the order in which they are taken.
    """
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


@dataclass(frozen=True)
class _Rows:
    """Rows, the longest first; micro-batches are told by the rows where they begin.

    Attributes:
        negative: Lengths below 0, so that they ascend, as `bisect` wants them.
        totals: Tokens before each row, and at last of all.
    """

    negative: Sequence[int]
    totals: Sequence[int]

    def seconds(self, begins: Sequence[int], costs: Costs) -> Iterator[float]:
        """Of each micro-batch."""
        for begin, end in itertools.pairwise([*begins, len(self.negative)]):
            yield costs.estimate(end - begin, self.totals[end] - self.totals[begin], -self.negative[begin])


def _equal(rows: _Rows, size: int, *_: object) -> list[int]:
    """Rows of one length in the fewest near-equal micro-batches of at most `size` tokens."""
    begins: list[int] = []
    begin = 0
    while begin < len(rows.negative):
        end = bisect_right(rows.negative, rows.negative[begin], lo=begin)
        most = max(1, size // max(1, -rows.negative[begin]))
        runs = math.ceil((end - begin) / most)
        begins += [begin + (end - begin) * run // runs for run in range(runs)]
        begin = end
    return begins


def _mixed(rows: _Rows, size: int, costs: Costs, max_padded_tokens: float) -> list[int]:
    """Rows of similar length, at most `size` tokens a run, while sharing it saves more than padding costs."""
    begins: list[int] = []
    begin = 0
    while begin < len(rows.negative):
        begins.append(begin)
        longest = -rows.negative[begin]
        within_tokens = bisect_right(rows.totals, rows.totals[begin] + size, lo=begin) - 1
        worth_padding = bisect_right(rows.negative, -costs.min_length_to_batch(longest), lo=begin)
        within_padded = begin + max_padded_tokens / max(1, longest)
        begin = max(begin + 1, int(min(within_tokens, worth_padding, within_padded)))
    return begins
