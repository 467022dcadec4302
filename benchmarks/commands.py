"""`encort bench`: what a bundle costs on this machine."""

from pathlib import Path

import click


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--precision", default="auto", help="auto, fp32 or int8.")
@click.option("--calibrate", is_flag=True, help="Keep the costs in the user's cache folder; loading plans by them.")
def bench(bundle: Path, precision: str, calibrate: bool) -> None:
    """What a run of BUNDLE costs on one core of this machine.

    \b
    encort bench banking.bundle --precision int8 --calibrate
    """  # noqa: D301 - click's mark for examples is the character itself
    import numpy as np

    from encort.runtime.model import load

    with load(bundle, precision=precision) as model:
        costs = model.calibrate() if calibrate else model.measure_costs()
        click.echo(f"a run {1e3 * costs.run:.3f} ms, each token {1e6 * costs.token:.1f} us")
        click.echo("tokens  ms a text  tokens a second")
        limit = model.manifest.max_length
        for length in sorted({min(length, limit) for length in (8, 16, 64, 128, limit)}):
            seconds = costs.seconds(np.array([length]))
            click.echo(f"{length:6d}  {1e3 * seconds:9.2f}  {length / seconds:15.0f}")
