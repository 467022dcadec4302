"""`encort bench`: measure a bundle on this machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from encort.runtime.common.extras import require
from encort.runtime.common.output.terminal import echo

if TYPE_CHECKING:
    from encort.runtime.options import DeviceName, PrecisionName

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("bundle")
@click.option("--device", default="auto", help="auto, cpu, cuda, or a GPU as cuda:1.")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "bf16", "int8"]),
    default="auto",
    help="Precision of the graph; default: auto, the exporter's first choice. fp16 is for GPUs.",
)
@click.option("--threads", type=click.IntRange(min=1), help="Cores to use; default: all that this process may use.")
@click.option("--input", "texts", type=_FILE, help="File of texts to measure with; default: the bundle's sample texts.")
@click.option("--column", help="Column of the texts, if the file is a table.")
@click.option("--header", help="Names of the columns, separated by commas, for a .csv or .tsv file without them.")
@click.option("--against", type=click.Choice(["eager"]), help="Also measure eager PyTorch, in turn with the bundle.")
@click.option("--checkpoint", help="Checkpoint for eager PyTorch; default: the one that was exported.")
@click.option(
    "--rate",
    "rates",
    type=click.FloatRange(min=0, min_open=True),
    multiple=True,
    help="Texts that arrive per second in the load test; default: several rates up to saturation.",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Runs of the whole workload; default: up to 7, as time allows."
)
@click.option(
    "--budget-s",
    type=click.FloatRange(min=1),
    default=120,
    show_default=True,
    help="Seconds to take, about. Texts, rounds, calls and processes are as many as fit.",
)
@click.option("--profile", is_flag=True, help="Also measure the time of each operator.")
@click.option("--output", "-o", type=_FILE, help="Write the numbers as JSON.")
@click.option("--html", "page", type=_FILE, help="Write a page with plots.")
@click.option("--calibrate", is_flag=True, help="Only measure the costs of runs, and store them for later loads.")
def bench(
    bundle: str,
    device: "DeviceName",
    precision: "PrecisionName",
    threads: int | None,
    texts: Path | None,
    column: str | None,
    header: str | None,
    against: str | None,
    checkpoint: str | None,
    rates: tuple[float, ...],
    rounds: int | None,
    budget_s: float,
    profile: bool,
    output: Path | None,
    page: Path | None,
    calibrate: bool,
) -> None:
    """Measure BUNDLE on this machine: throughput, latency, load, cold start, memory.

    \b
    encort bench banking.bundle --against eager --html bench.html
    encort bench banking.bundle --input messages.csv --precision int8 --profile
    encort bench banking.bundle --precision int8 --calibrate
    """  # noqa: D301 - click's mark for examples is the character itself
    if calibrate:
        _calibrate(bundle, device, precision, threads)
        return
    require("encort bench", "bench", "matplotlib", "tqdm")
    if against is not None:
        require("encort bench --against eager", "export", "torch", "transformers", "safetensors")
    from encort.runtime.common.folders import check_file_writable

    for file in filter(None, (output, page)):
        check_file_writable(file)
    from encort.benchmarks.bundle.bench import measure_bundle
    from encort.benchmarks.bundle.page import render_html, render_text
    from encort.benchmarks.results import save
    from encort.runtime.hub.download import open_bundle

    report = measure_bundle(
        open_bundle(bundle).folder,
        device=device,
        precision=precision,
        threads=threads,
        texts_file=texts,
        column=column,
        header=header,
        eager=against is not None,
        checkpoint=checkpoint,
        rates=rates,
        rounds=rounds,
        budget_s=budget_s,
        with_profile=profile,
    )
    if output is not None:
        save(report, output)
    if page is not None:
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(render_html(report), encoding="utf-8")
    echo(render_text(report))


def _calibrate(bundle: str, device: "DeviceName", precision: "PrecisionName", threads: int | None) -> None:
    from encort.runtime.model import load

    with load(bundle, device=device, precision=precision, threads=threads) as model:
        costs = model.calibrate()
    echo(f"{1e3 * costs.run:.3f} ms per run and {1e6 * costs.token:.1f} us per token")
