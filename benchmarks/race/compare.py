"""Two results of the same measurement: what became slower?

    python -m encort.benchmarks.race.compare BEFORE.json AFTER.json

Each time is taken in relation to what everything else of both results took in the same round (the geometric mean of
peers and matrix products), so that a slower machine is not a slower program. Exits with 1 if anything of encort's
became slower by more than the threshold and than the rounds vary.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from encort.benchmarks.results import BundleReport, Race, read
from encort.benchmarks.timing import change
from encort.runtime.common.errors import InputError

OURS = "encort"


class Timed(NamedTuple):
    """What was timed: a system's or a way's workload, or its calls of one shape."""

    name: str
    shape: str = ""

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(OURS)

    def __str__(self) -> str:
        return f"{self.name}, {self.shape}" if self.shape else self.name


Times = Mapping[Timed, Sequence[float]]
"""One a round."""


@click.command(help=__doc__)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--threshold", default=1.05, show_default=True, help="How many times as long is too long.")
def main(before: Path, after: Path, threshold: float) -> None:
    try:
        first, second = _comparable(read(before), read(after))
    except InputError as error:
        click.echo(str(error), err=True)
        sys.exit(InputError.exit_code)
    slower = 0
    for each in (each for each in first if each in second):
        times = change(first[each], second[each])
        is_slower = each.is_ours and times.low > threshold
        slower += is_slower
        click.echo(f"{each}: {times} of the time before{', SLOWER' if is_slower else ''}")
    sys.exit(1 if slower else 0)


def _comparable(before: BundleReport | Race, after: BundleReport | Race) -> tuple[Times, Times]:
    """Times of both, of the same work, in relation to what else both have.

    Raises:
        InputError: It was not, there is nothing else, or something of encort's is in the first only.
    """
    works = [_work(before), _work(after)]
    if works[0] != works[1]:
        raise InputError(f"these are not of the same work: {works[0]}, and {works[1]}")
    first, second = _times(before), _times(after)
    lost = [str(each) for each in first if each.is_ours and each not in second]
    if lost:
        raise InputError(f"the second result lacks {', '.join(lost)}; did it fail?")
    others = [each for each in first if each in second and not each.is_ours]
    return _relative(first, others), _relative(second, others)


def _work(result: BundleReport | Race) -> str:
    subject = result.task if isinstance(result, BundleReport) else result.model
    return f"{result.kind} of {subject}, {result.texts} texts, {result.tokens} tokens, {result.threads} threads"


def _times(result: BundleReport | Race) -> Times:
    """Seconds of everything."""
    if isinstance(result, BundleReport):
        return {Timed("matrix product"): result.control} | {Timed(way.name): way.seconds for way in result.ways}
    found: dict[Timed, Sequence[float]] = {}
    for each in (each for each in (*result.limits, *result.outcomes) if each.error is None):
        name = f"{each.name} {each.precision}"
        found[Timed(name)] = each.seconds
        found |= {Timed(name, shape): seconds for shape, seconds in each.grid.items()}
    return found


def _relative(times: Times, others: Sequence[Timed]) -> Times:
    """The same in units of what the others took, for calls of the same shape where they have any."""
    return {each: _over(seconds, _control(each, times, others)) for each, seconds in times.items()}


def _control(timed: Timed, times: Times, others: Sequence[Timed]) -> Sequence[float]:
    rest = [other for other in others if other != timed] or others
    alike = [other for other in rest if other.shape == timed.shape]
    chosen = alike or [other for other in rest if not other.shape] or [other for other in others if other == timed]
    return [statistics.geometric_mean(each) for each in zip(*(times[other] for other in chosen), strict=True)]


def _over(seconds: Sequence[float], control: Sequence[float]) -> Sequence[float]:
    if len(seconds) != len(control):
        raise InputError("these cannot be compared: nothing but encort's own is in every round of both")
    return [each / other for each, other in zip(seconds, control, strict=True)]


if __name__ == "__main__":
    main()
