"""Time systems in turn, and give medians with intervals of confidence."""

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tqdm import tqdm

Argument = TypeVar("Argument")
Measured = TypeVar("Measured")

CONFIDENCE = 0.95
ROUNDS = 7
BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A median ratio and its interval of confidence, such as how many times as fast one system is as another."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}x ({self.low:.2f}-{self.high:.2f})"


def elapsed(run: Callable[[Argument], object], argument: Argument) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    run(argument)
    return time.perf_counter() - start


def measure_in_turn(
    systems: Mapping[str, Callable[[], Measured]],
    *,
    rounds: int,
    seed: int = 13,
    quiet: bool = False,
    before_each: Callable[[str, int], None] | None = None,
) -> dict[str, list[Measured]]:
    """Measure every system once per round, in an order that is drawn for each round.

    A machine that slows down for a while then slows down all systems.

    Args:
        systems: By name; each measures itself.
        rounds: Number of rounds.
        seed: Seed of the orders.
        quiet: Whether to show no progress bar.
        before_each: Called before each measurement with the name of the system and the number of the round, from 1. It
            shows the progress in place of the bar.

    Returns:
        Results of each system by its name, one per round.
    """
    order, draw = list(systems), random.Random(seed)  # noqa: S311 - no secret
    results: dict[str, list[Measured]] = {name: [] for name in systems}
    for number in tqdm(range(1, rounds + 1), desc="rounds", disable=quiet or before_each is not None or None):
        draw.shuffle(order)
        for name in order:
            if before_each is not None:
                before_each(name, number)
            results[name].append(systems[name]())
    return results


def speedup(seconds: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """Return how many times as fast as the baseline a system is: the median of the ratios of the rounds.

    >>> speedup([1.0, 2.0, 1.0], [3.0, 6.0, 3.0])
    Ratio(median=3.0, low=3.0, high=3.0)

    Args:
        seconds: Seconds of the system, one value per round.
        baseline: Seconds of the baseline in the same rounds.
    """
    return median_of_rounds([theirs / ours for ours, theirs in zip(seconds, baseline, strict=True)])


def change(before: Sequence[float], after: Sequence[float]) -> Ratio:
    """Return the ratio of the medians of two separate runs, after to before.

    The interval comes from the bootstrap. It does not include the difference between two runs of the same program.

    >>> change([2.0, 2.0, 2.0], [1.0, 1.0, 1.0])
    Ratio(median=0.5, low=0.5, high=0.5)
    """
    draw = random.Random(13)  # noqa: S311 - no secret
    medians = [
        [statistics.median(draw.choices(values, k=len(values))) for _ in range(BOOTSTRAP_DRAWS)]
        for values in (before, after)
    ]
    ratios = sorted(second / first for first, second in zip(*medians, strict=True))
    outside = round(BOOTSTRAP_DRAWS * (1 - CONFIDENCE) / 2)
    median = statistics.median(after) / statistics.median(before)
    return Ratio(median=median, low=ratios[outside], high=ratios[-1 - outside])


def median_of_rounds(values: Sequence[float]) -> Ratio:
    """Return the median, and the two values between which the true median lies with the confidence.

    This holds for every distribution. With fewer than six values the interval goes from the least value to the
    greatest, and the confidence is lower: 94 % for five values, 75 % for three (David and Nagaraja, Order Statistics,
    7.1).

    >>> median_of_rounds([5, 1, 4, 2, 3])
    Ratio(median=3, low=1, high=5)
    """
    ordered, count = sorted(values), len(values)
    outside, tail = 0, 0.5**count
    while 2 * (tail + math.comb(count, outside + 1) * 0.5**count) <= 1 - CONFIDENCE:
        outside += 1
        tail += math.comb(count, outside) * 0.5**count
    return Ratio(median=statistics.median(ordered), low=ordered[outside], high=ordered[-1 - outside])
