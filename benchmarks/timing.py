"""Seconds of things measured in turn, and what may be said of them."""

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

Measured = TypeVar("Measured")
Floats = NDArray[np.float64]

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast one system is as another: the median over the rounds, and an interval of confidence."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"


def in_turn(
    ways: Mapping[str, Callable[[], Measured]], *, rounds: int, seed: int = 13, quiet: bool = False
) -> dict[str, list[Measured]]:
    """What each way gives, once a round; every round has all of them, in an order of its own.

    So a machine that slows down for a while slows all of them.

    Args:
        ways: By name; each measures itself.
        quiet: Without a progress bar.
    """
    order, draw = list(ways), random.Random(seed)  # noqa: S311 - no secret
    found: dict[str, list[Measured]] = {name: [] for name in ways}
    for _ in tqdm(range(rounds), desc="rounds", disable=quiet or None):
        draw.shuffle(order)
        for name in order:
            found[name].append(ways[name]())
    return found


def speed(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """How many times as fast as the baseline, by the ratios of each round.

    >>> speed([1.0, 2.0, 1.0], [3.0, 6.0, 3.0])
    Ratio(median=3.0, low=3.0, high=3.0)
    """
    ratios = np.array(baseline) / np.array(seconds)
    low, high = _interval(_medians(ratios))
    return Ratio(median=float(np.median(ratios)), low=low, high=high)


def change(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """How many times as much the second numbers are, which come from a run of their own.

    >>> change([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    Ratio(median=0.5, low=0.5, high=0.5)
    """
    low, high = _interval(_medians(np.array(after), seed=1) / _medians(np.array(before), seed=2))
    return Ratio(median=statistics.median(after) / statistics.median(before), low=low, high=high)


def _medians(values: Floats, seed: int = 13) -> Floats:
    """Medians of values drawn from these with replacement (bootstrap, Efron 1979), `(resamples,)` float64."""
    drawn = np.random.default_rng(seed).choice(values, (_RESAMPLES, len(values)))
    medians: Floats = np.median(drawn, axis=1)
    return medians


def _interval(values: Floats) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
