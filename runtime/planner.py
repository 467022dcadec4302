"""Lengths to micro-batches: which rows share one graph run."""

import heapq
import math
from collections.abc import Sequence

import numpy as np

from encort.runtime.costs import Costs
from encort.runtime.tokens import Int64Array

TOKENS_PER_RUN = 512
"""Most tokens of a run of several rows: beyond it nothing gets faster, and memory grows."""

_SIZES = (1, 16, 32, 64, 128, 256, TOKENS_PER_RUN)
"""Tokens a run that a plan is tried with."""


def plan_equal_length(lengths: Int64Array, *, workers: int, costs: Costs | None = None) -> list[Int64Array]:
    """Group rows of equal length, so that nothing is padded and no mask is needed.

    A masked attention costs 1.4 times an unmasked one on ONNX Runtime's CPU provider, and padding costs its
    share of everything. Of several sizes of micro-batches the one is taken whose last worker is done first.

    >>> [batch.tolist() for batch in plan_equal_length(np.array([3, 9, 3]), workers=1)]
    [[1], [0, 2]]

    Args:
        lengths: `(n,)` int64, tokens of each row.
        workers: Micro-batches that run at the same time.
        costs: None takes the defaults.

    Returns:
        Indices of rows, each index in exactly one micro-batch; the longest rows first, because a long run
        that starts last would leave the other workers idle.
    """
    if len(lengths) <= 1:
        return [np.arange(1)] * len(lengths)
    order = np.argsort(-lengths, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(lengths[order])) + 1)
    plans = [[batch for group in groups for batch in _cut(group, int(lengths[group[0]]), size)] for size in _SIZES]
    return min(plans, key=lambda plan: seconds(plan, lengths, workers=workers, costs=costs or Costs()))


def seconds(plan: Sequence[Int64Array], lengths: Int64Array, *, workers: int, costs: Costs) -> float:
    """When the last worker is done, if each takes the next micro-batch as soon as it is free."""
    free = [0.0] * workers
    for batch in plan:
        heapq.heapreplace(free, free[0] + costs.seconds(len(batch), int(lengths[batch[0]])))
    return max(free)


def _cut(group: Int64Array, length: int, tokens: int) -> list[Int64Array]:
    """Cut rows of one length into the fewest near-equal micro-batches of at most that many tokens."""
    rows = max(1, tokens // max(1, length))
    return np.array_split(group, math.ceil(len(group) / rows))
