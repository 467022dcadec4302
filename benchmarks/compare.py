"""Two results of the same measurement: what became slower?

    python -m encort.benchmarks.compare BEFORE.json AFTER.json

Each time is taken in relation to the machine's matrix product in the same round, so that a slower machine is not a
slower program. Exits with 1 if anything of encort's became slower by more than the threshold and than the rounds vary.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import numpy as np

from encort.benchmarks.results import BundleReport, Race, read
from encort.benchmarks.timing import change
from encort.runtime.errors import InputError


@click.command(help=__doc__)
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--threshold", default=1.05, show_default=True, help="How many times as long is too long.")
def main(before: Path, after: Path, threshold: float) -> None:
    first, second = _relative(read(before)), _relative(read(after))
    both = [name for name in first if name in second]
    if not both:
        raise InputError(f"{before} and {after} have nothing in common")
    slower = []
    for name in both:
        times = change(first[name], second[name])
        is_slower = name.startswith("encort") and times.low > threshold
        slower += [name] if is_slower else []
        click.echo(f"{name}: {times} of the time before{', SLOWER' if is_slower else ''}")
    sys.exit(1 if slower else 0)


def _relative(result: BundleReport | Race) -> Mapping[str, Sequence[float]]:
    """Seconds of every system, one a round, in units of the machine's product."""
    if isinstance(result, BundleReport):
        return {way.name: _over(way.seconds, result.control) for way in result.ways}
    control = next((limit.seconds for limit in result.limits if limit.precision == "fp32"), [])
    return {
        f"{each.name} {each.precision}": _over(each.seconds, control) for each in result.outcomes if each.error is None
    }


def _over(seconds: Sequence[float], control: Sequence[float]) -> Sequence[float]:
    if len(seconds) != len(control):
        raise InputError("a result without the machine's product in every round cannot be compared")
    relative: list[float] = (np.array(seconds) / np.array(control)).tolist()
    return relative


if __name__ == "__main__":
    main()
