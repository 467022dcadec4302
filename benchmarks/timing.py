"""Seconds of things measured in turn, and what may be said of them."""

import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Measured = TypeVar("Measured")

CONFIDENCE = 0.95
ROUNDS = 7
DRAWS = 2000
"""Of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A median over rounds, such as how many times as fast one system is as another, and its interval of confidence."""

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
    return of_rounds([theirs / ours for ours, theirs in zip(seconds, baseline, strict=True)])


def change(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """How many times as much the second numbers are, which come from a run of their own.

    The interval is of the ratio of medians, by the bootstrap; what differs from run to run is not in it.

    >>> change([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    Ratio(median=0.5, low=0.5, high=0.5)
    """
    draw = random.Random(13)  # noqa: S311 - no secret
    medians = [[statistics.median(draw.choices(each, k=len(each))) for _ in range(DRAWS)] for each in (before, after)]
    ratios = sorted(second / first for first, second in zip(*medians, strict=True))
    outside = round(DRAWS * (1 - CONFIDENCE) / 2)
    median = statistics.median(after) / statistics.median(before)
    return Ratio(median=median, low=ratios[outside], high=ratios[-1 - outside])


def of_rounds(values: Sequence[float]) -> Ratio:
    """The median, and between which of the values it lies with the confidence, whatever their distribution.

    Of fewer than six values these are the least and the greatest, and the confidence is lower: 94 % of five, 75 % of
    three (David and Nagaraja, Order Statistics, 7.1).

    >>> of_rounds([5, 1, 4, 2, 3])
    Ratio(median=3, low=1, high=5)
    """
    ordered, count = sorted(values), len(values)
    outside, tail = 0, 0.5**count
    while 2 * (tail + math.comb(count, outside + 1) * 0.5**count) <= 1 - CONFIDENCE:
        outside += 1
        tail += math.comb(count, outside) * 0.5**count
    return Ratio(median=statistics.median(ordered), low=ordered[outside], high=ordered[-1 - outside])
