"""Soak: run the scenarios for minutes or hours, with random choices from one printed seed."""

import os
import secrets
import sys
import tempfile
from pathlib import Path

import click

from tests.builders import ENVIRONMENT
from tests.soak.models import make_models
from tests.soak.runner import SCENARIOS, SoakError, run_scenario


@click.command()
@click.option(
    "--minutes", type=click.FloatRange(min=0), default=7, show_default=True, help="Minutes for all scenarios."
)
@click.option("--seed", type=int, help="Seed of all random choices.  [default: a new one]")
@click.option(
    "--only", "names", type=click.Choice(list(SCENARIOS)), multiple=True, help="Run this scenario; repeatable."
)
@click.option("--step", type=int, default=0, show_default=True, help="First step of each scenario.")
def main(minutes: float, seed: int | None, names: tuple[str, ...], step: int) -> None:
    """Run the scenarios one after the other; the exit code is 1 if one of them found a fault."""
    os.environ |= {**ENVIRONMENT, "TRANSFORMERS_VERBOSITY": "error"}
    seed = secrets.randbelow(10**9) if seed is None else seed
    names = names or tuple(SCENARIOS)
    seconds = 60 * minutes / len(names)
    click.echo(f"seed {seed}, {seconds:.0f} seconds for each of: {', '.join(names)}")
    failed = False
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        models = make_models(Path(folder))
        for name in names:
            try:
                counts = run_scenario(name, models, seed=seed, seconds=seconds, first_step=step)
            except SoakError as error:
                failed = True
                click.echo(error, err=True)
            else:
                click.echo(f"{name}: {', '.join(f'{count} {what}' for what, count in sorted(counts.items()))}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
