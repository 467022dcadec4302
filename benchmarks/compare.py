"""Two results of the same measurement: what became slower?

    python -m encort.benchmarks.compare BEFORE.json AFTER.json

Each time is taken in relation to the machine's matrix product in the same round, so that a slower machine is not a
slower program; runs of the same program still differ by a few percent. Exits with 1 if anything of encort's became
slower by more than the threshold and than the rounds vary.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from encort.benchmarks.results import BundleReport, Race, read
from encort.benchmarks.timing import change
from encort.runtime.errors import InputError

Times = Mapping[str, Sequence[float]]
"""By name; one a round."""


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
    for name in (name for name in first if name in second):
        times = change(first[name], second[name])
        is_slower = name.startswith("encort") and times.low > threshold
        slower += is_slower
        click.echo(f"{name}: {times} of the time before{', SLOWER' if is_slower else ''}")
    sys.exit(1 if slower else 0)


def _comparable(before: BundleReport | Race, after: BundleReport | Race) -> tuple[Times, Times]:
    """Times of both, of the same work.

    Raises:
        InputError: It was not, or something of encort's is in the first only.
    """
    works = [_work(before), _work(after)]
    if works[0] != works[1]:
        raise InputError(f"these are not of the same work: {works[0]}, and {works[1]}")
    first, second = _relative(before), _relative(after)
    lost = [name for name in first if name.startswith("encort") and name not in second]
    if lost:
        raise InputError(f"the second result lacks {', '.join(lost)}; did it fail?")
    return first, second


def _work(result: BundleReport | Race) -> str:
    subject = result.task if isinstance(result, BundleReport) else result.model
    return f"{result.kind} of {subject}, {result.texts} texts, {result.tokens} tokens, {result.threads} threads"


def _relative(result: BundleReport | Race) -> Times:
    """Seconds of everything, one a round, in units of the machine's product."""
    if isinstance(result, BundleReport):
        return {way.name: _over(way.seconds, result.control) for way in result.ways}
    control = next((limit.seconds for limit in result.limits if limit.precision == "fp32"), [])
    found: dict[str, Sequence[float]] = {}
    for each in (each for each in result.outcomes if each.error is None):
        name = f"{each.name} {each.precision}"
        found[name] = _over(each.seconds, control)
        found |= {f"{name}, {shape}": _over(seconds, control) for shape, seconds in each.grid.items()}
    return found


def _over(seconds: Sequence[float], control: Sequence[float]) -> Sequence[float]:
    if len(seconds) != len(control):
        raise InputError("a result without the machine's product in every round cannot be compared")
    return [each / product for each, product in zip(seconds, control, strict=True)]


if __name__ == "__main__":
    main()
