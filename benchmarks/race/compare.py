"""Compare two results of the same measurement, and say what became slower.

    python -m encort.benchmarks.race.compare BEFORE.json AFTER.json

Each time is divided by the time of everything else in the same round: the geometric mean of the peers and the matrix
products that both results have. So a slower machine does not look like a slower program. The exit code is 1 if a time
of encort's grew by more than the threshold, with the whole interval of confidence above it.
"""

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from encort.benchmarks.bundle.report import BundleReport
from encort.benchmarks.command_help import command_help
from encort.benchmarks.results import Race, read
from encort.benchmarks.timing import change
from encort.runtime.common.errors import InputError
from encort.runtime.common.output.terminal import echo

OURS = "encort"


class Timed(NamedTuple):
    """Key of a time: a system with the whole workload, or a system with calls of one shape."""

    name: str
    shape: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether it is a time of encort's."""
        return self.name.startswith(OURS)

    def __str__(self) -> str:
        return f"{self.name}, {self.shape}" if self.shape else self.name


Times = Mapping[Timed, Sequence[float]]
"""Times by key, one per round."""


@click.command(help=command_help(__doc__))
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--threshold", default=1.05, show_default=True, help="Ratio of times that counts as slower.")
def main(before: Path, after: Path, threshold: float) -> None:
    try:
        first, second = _comparable(read(before), read(after))
    except InputError as error:
        echo(str(error), err=True)
        sys.exit(InputError.exit_code)
    slower = 0
    for timed in (timed for timed in first if timed in second):
        ratio = change(first[timed], second[timed])
        is_slower = timed.is_ours and ratio.low > threshold
        slower += is_slower
        echo(f"{timed}: {ratio} of the time before{', SLOWER' if is_slower else ''}")
    sys.exit(1 if slower else 0)


def _comparable(before: BundleReport | Race, after: BundleReport | Race) -> tuple[Times, Times]:
    """Return the times of both results, relative to everything else that both have.

    Raises:
        InputError: The work was different, there is nothing to relate to, or a time of encort's is in the first only.
    """
    works = [_work(before), _work(after)]
    if works[0] != works[1]:
        raise InputError(f"these results are not of the same work: {works[0]}, and {works[1]}")
    first, second = _times(before), _times(after)
    lost = [str(timed) for timed in first if timed.is_ours and timed not in second]
    if lost:
        raise InputError(f"the second result lacks {', '.join(lost)}; did it fail?")
    others = [timed for timed in first if timed in second and not timed.is_ours]
    return _relative(first, others), _relative(second, others)


def _work(result: BundleReport | Race) -> str:
    subject = result.task if isinstance(result, BundleReport) else result.model
    return f"{result.kind} of {subject}, {result.texts} texts, {result.tokens} tokens, {result.threads} threads"


def _times(result: BundleReport | Race) -> Times:
    """Return the seconds of everything in a result."""
    if isinstance(result, BundleReport):
        systems: dict[Timed, Sequence[float]] = {Timed(system.name): system.seconds for system in result.systems}
        return {Timed("matrix product"): result.control} | systems
    times: dict[Timed, Sequence[float]] = {}
    for outcome in (outcome for outcome in (*result.limits, *result.outcomes) if outcome.error is None):
        name = f"{outcome.name} {outcome.precision}"
        times[Timed(name)] = outcome.seconds
        times |= {Timed(name, shape): seconds for shape, seconds in outcome.grid.items()}
    return times


def _relative(times: Times, others: Sequence[Timed]) -> Times:
    """Divide all times by those of the others."""
    return {timed: _divide(seconds, _control(timed, times, others)) for timed, seconds in times.items()}


def _control(timed: Timed, times: Times, others: Sequence[Timed]) -> Sequence[float]:
    """Return the geometric mean of the others per round: of calls of the same shape, else of whole workloads."""
    rest = [other for other in others if other != timed] or others
    same_shape = [other for other in rest if other.shape == timed.shape]
    chosen = same_shape or [other for other in rest if not other.shape] or [other for other in others if other == timed]
    return [statistics.geometric_mean(seconds) for seconds in zip(*(times[other] for other in chosen), strict=True)]


def _divide(seconds: Sequence[float], control: Sequence[float]) -> Sequence[float]:
    if len(seconds) != len(control):
        raise InputError("these cannot be compared: only encort's own times are in every round of both results")
    return [own / other for own, other in zip(seconds, control, strict=True)]


if __name__ == "__main__":
    main()
