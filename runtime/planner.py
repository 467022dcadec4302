"""Lengths to micro-batches: which rows share one graph run."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from encort.runtime.tokens import Int64Array

TOKENS_PER_RUN = 512
"""Most tokens of a run of several rows: beyond it nothing gets faster, and memory grows."""

_SIZES = (1, 16, 32, 64, 128, 256, TOKENS_PER_RUN)
"""Tokens a run that a plan is tried with."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a run costs on one core: `run + token * tokens + pair * rows * length ** 2`.

    Only ratios matter to a plan. The defaults are seconds of MiniLM in 8 bits on one Zen 4 core; of a larger model
    `run` is more of the whole, since its weights do not stay in the cache.

    Attributes:
        run: A run by itself: reading the weights, dispatching the nodes.
        token: What each token adds, in the layers that know no other.
        pair: What each pair of tokens of a row adds, in attention.
    """

    run: float = 2.0e-4
    token: float = 7.6e-5
    pair: float = 1.0e-7

    def seconds(self, rows: int, length: int) -> float:
        return self.run + self.token * rows * length + self.pair * rows * length**2


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
