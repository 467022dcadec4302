"""Format a report of `encort bench` as text for a terminal, or as one HTML page that needs no other file."""

import html
import io
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from encort.benchmarks.bundle.report import BundleReport
from encort.benchmarks.bundle.systems import EAGER
from encort.benchmarks.timing import speedup
from encort.runtime.common.output.escaping import printable

Cells = Sequence[str]
Table = tuple[str, list[str], list[list[str]]]
"""Title, header, rows."""


def render_text(report: BundleReport) -> str:
    """Return tables for a terminal."""
    parts = [_about(report)]
    for title, header, rows in build_tables(report):
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in (header, *rows))
        ]
        parts.append("\n".join([f"\n{title}", *lines]))
    return "\n".join(parts)


def render_html(report: BundleReport) -> str:
    """Return a page with the tables and the plots, which are inside it as SVG."""
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(report))
    body = "".join(map(_html_table, build_tables(report)))
    return _PAGE.format(title=_plain(f"encort bench {report.bundle}"), about=_plain(_about(report)), body=plots + body)


def build_tables(report: BundleReport) -> list[Table]:
    """Return one table for each part of the report."""
    tables = [_throughput(report), _latency(report), _load(report), _cold_start(report), _stages(report)]
    return tables if report.profile is None else [*tables, _profile(report)]


def _about(report: BundleReport) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{report.bundle} ({report.task}) on {machine.cpu}, {report.device}, {report.threads} threads, "
        f"Python {machine.python}, {versions}, revision {machine.revision or 'unknown'}, {machine.date}"
    )


def _throughput(report: BundleReport) -> Table:
    eager = next((system.seconds for system in report.systems if system.name == EAGER), None)
    rows = [
        [
            system.name,
            f"{statistics.median(system.seconds):.3f}",
            f"{report.texts / statistics.median(system.seconds):,.0f}",
            f"{report.tokens / statistics.median(system.seconds):,.0f}",
            "" if eager is None else str(speedup(system.seconds, eager)),
            "" if system.cosine_mean is None else f"{system.cosine_mean:.5f} / {system.cosine_min:.4f}",
        ]
        for system in report.systems
    ]
    title = (
        f"Throughput: {report.texts} texts, {report.tokens} tokens ({report.workload}); "
        f"medians of {len(report.control)} rounds, systems in turn"
    )
    return title, ["system", "seconds", "texts/s", "tokens/s", f"speedup to {EAGER}", "cosine, mean / min"], rows


def _latency(report: BundleReport) -> Table:
    rows = [
        [
            latency.system,
            f"{latency.texts} x {latency.tokens}",
            *(_decimals(value) for value in (latency.p50_ms, latency.p90_ms, latency.p99_ms, latency.max_ms)),
            str(latency.calls),
        ]
        for latency in report.latency
    ]
    return "Latency per call, ms", ["system", "texts x tokens", "p50", "p90", "p99", "max", "calls"], rows


def _load(report: BundleReport) -> Table:
    rows = [
        [
            f"{load.offered:.0f}",
            f"{load.served:.0f}",
            str(load.refused),
            *(_decimals(value) for value in (load.p50_ms, load.p99_ms, load.queue_ms)),
        ]
        for load in report.load
    ]
    header = ["texts/s offered", "served", "refused", "p50 ms", "p99 ms", "mean ms in the queue"]
    return f"Open-loop load, Poisson arrivals, {report.precision}", header, rows


def _cold_start(report: BundleReport) -> Table:
    names = ("python_seconds", "import_seconds", "load_seconds", "first_seconds", "seconds")
    rows = []
    for system in dict.fromkeys(start.system for start in report.cold_starts):
        starts = [start for start in report.cold_starts if start.system == system]
        medians = [statistics.median(getattr(start, name) for start in starts) for name in names]
        memory = (starts[0].peak_mib_first, starts[0].peak_mib)
        rows.append([system, *map(_decimals, medians), *("" if mib is None else f"{mib:.0f}" for mib in memory)])
    header = ["system", "start Python", "imports", "load", "first text", "total", "peak MiB", "peak MiB, all texts"]
    return "Cold start of a process, seconds", header, rows


def _decimals(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _stages(report: BundleReport) -> Table:
    stages = report.stages
    parts = {"tokenize": stages.tokenize, "run": stages.run, "padding (at most)": stages.padding, "rest": stages.rest}
    total = sum(parts.values())
    rows = [[name, f"{value:.3f}", f"{100 * value / total:.1f} %"] for name, value in parts.items()]
    return f"Time of the workload by stage, {report.precision}, one core", ["stage", "seconds", "share"], rows


def _profile(report: BundleReport) -> Table:
    rows = [
        [operator.name, f"{operator.seconds:.3f}", f"{100 * operator.share:.1f} %", str(operator.calls)]
        for operator in report.profile or ()
    ]
    return "Time of the runs by operator, one core", ["operator", "seconds", "share", "calls"], rows


def _plots(report: BundleReport) -> Iterator[str]:
    """Yield the plots as SVG."""
    for plot in (_plot_latency, _plot_load, _plot_stages, _plot_fidelity):
        with _figure() as (axes, picture):
            plot(axes, report)
            axes.legend()
        yield picture.getvalue()


def _plot_latency(axes: Any, report: BundleReport) -> None:
    for system in dict.fromkeys(latency.system for latency in report.latency):
        single = [latency for latency in report.latency if latency.system == system and latency.texts == 1]
        tokens, p50s = [latency.tokens for latency in single], [latency.p50_ms for latency in single]
        axes.plot(tokens, p50s, marker="o", label=system)
    axes.set(xlabel="tokens of one text", ylabel="p50, ms", yscale="log", title="Latency by length")


def _plot_load(axes: Any, report: BundleReport) -> None:
    served = [load for load in report.load if load.p50_ms is not None]
    for name, label in {"p50_ms": "p50", "p99_ms": "p99", "queue_ms": "in the queue, mean"}.items():
        values = [getattr(load, name) for load in served]
        axes.plot([load.offered for load in served], values, marker="o", label=label)
    axes.set(xlabel="texts per second offered", ylabel="ms", yscale="log", title="Latency under open-loop load")


def _plot_stages(axes: Any, report: BundleReport) -> None:
    left = 0.0
    for name, milliseconds in _milliseconds_per_text(report).items():
        axes.barh(["a text"], [milliseconds], left=left, label=name)
        left += milliseconds
    axes.set(xlabel="ms, mean", title="Time per text by stage, on one core, and in the queue of the service")


def _plot_fidelity(axes: Any, report: BundleReport) -> None:
    for system in report.systems:
        if system.name == EAGER or system.cosine_mean is not None:
            texts_per_second = report.texts / statistics.median(system.seconds)
            axes.scatter([texts_per_second], [system.cosine_mean or 1.0], label=system.name)
    axes.set(xlabel="texts per second", ylabel="mean cosine to eager PyTorch", title="Speed and fidelity")


def _milliseconds_per_text(report: BundleReport) -> dict[str, float]:
    """Return the time on one core, and the queue time at the highest rate that the service keeps up with."""
    stages = report.stages
    parts = {
        "tokenization": stages.tokenize,
        "padding (at most)": stages.padding,
        "run": stages.run,
        "rest": stages.rest,
    }
    queues = [load.queue_ms for load in report.load if load.served >= 0.95 * load.offered]
    return {name: 1e3 * seconds / report.texts for name, seconds in parts.items()} | {"queue": max(queues, default=0.0)}


@contextmanager
def _figure() -> Iterator[tuple[Any, io.StringIO]]:
    """Yield axes to draw on, and the buffer that holds the SVG afterwards."""
    picture = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        yield figure.subplots(), picture
        figure.savefig(picture, format="svg", metadata={"Date": None})


def _html_table(table: Table) -> str:
    title, header, rows = table
    lines = "".join(_html_row(row, "td") for row in rows)
    return f"<h2>{_plain(title)}</h2><table>{_html_row(header, 'th')}{lines}</table>"


def _html_row(cells: Cells, kind: str) -> str:
    return f"<tr>{''.join(f'<{kind}>{_plain(cell)}</{kind}>' for cell in cells)}</tr>"


def _plain(text: str) -> str:
    return html.escape(printable(text))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }} figure {{ display: inline-block; margin: 0 1rem 1rem 0 }}
</style></head><body><h1>{title}</h1><p>{about}</p>{body}</body></html>
"""
