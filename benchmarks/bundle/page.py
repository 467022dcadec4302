"""What `encort bench` measured as text for a terminal, and as one HTML page that needs nothing beside it."""

import html
import io
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from encort.benchmarks.bundle.bench import EAGER
from encort.benchmarks.results import BundleReport
from encort.benchmarks.timing import speed

Cells = Sequence[str]
Table = tuple[str, list[str], list[list[str]]]
"""Title, header, rows."""


def as_text(report: BundleReport) -> str:
    """Tables for a terminal."""
    parts = [_about(report)]
    for title, header, rows in tables(report):
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in (header, *rows))
        ]
        parts.append("\n".join([f"\n{title}", *lines]))
    return "\n".join(parts)


def as_html(report: BundleReport) -> str:
    """One page with the tables and plots; its pictures are in it."""
    plots = "".join(f"<figure>{plot}</figure>" for plot in _plots(report))
    body = "".join(map(_html_table, tables(report)))
    return _PAGE.format(title=_plain(f"encort bench {report.bundle}"), about=_plain(_about(report)), body=plots + body)


def tables(report: BundleReport) -> list[Table]:
    """All that was measured."""
    found = [_throughput(report), _latency(report), _load(report), _fresh(report), _stages(report)]
    return found if report.profile is None else [*found, _profile(report)]


def _about(report: BundleReport) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"{report.bundle} ({report.task}) on {machine.cpu}, {report.device}, {report.threads} threads, "
        f"Python {machine.python}, {versions}, revision {machine.revision or 'unknown'}, {machine.date}"
    )


def _throughput(report: BundleReport) -> Table:
    eager = next((way.seconds for way in report.ways if way.name == EAGER), None)
    rows = [
        [
            way.name,
            f"{statistics.median(way.seconds):.3f}",
            f"{report.texts / statistics.median(way.seconds):,.0f}",
            f"{report.tokens / statistics.median(way.seconds):,.0f}",
            "" if eager is None else str(speed(way.seconds, eager)),
            "" if way.cosine_mean is None else f"{way.cosine_mean:.5f} / {way.cosine_min:.4f}",
        ]
        for way in report.ways
    ]
    title = f"{report.texts} texts, {report.tokens} tokens of {report.workload}; medians of rounds in turn"
    return title, ["way", "seconds", "texts/s", "tokens/s", f"speed to {EAGER}", "cosine, mean / least"], rows


def _latency(report: BundleReport) -> Table:
    rows = [
        [
            each.way,
            f"{each.texts} x {each.tokens}",
            *(_two(value) for value in (each.p50_ms, each.p90_ms, each.p99_ms, each.max_ms)),
            str(each.calls),
        ]
        for each in report.latency
    ]
    return "Latency of a call, ms", ["way", "texts x tokens", "p50", "p90", "p99", "max", "calls"], rows


def _load(report: BundleReport) -> Table:
    rows = [
        [
            f"{each.offered:.0f}",
            f"{each.served:.0f}",
            str(each.turned_away),
            *(_two(value) for value in (each.p50_ms, each.p99_ms, each.queue_ms)),
        ]
        for each in report.load
    ]
    header = ["texts/s offered", "served", "turned away", "p50 ms", "p99 ms", "of it in the queue, mean ms"]
    return f"Open-loop load, Poisson arrivals, {report.precision}", header, rows


def _fresh(report: BundleReport) -> Table:
    names = ("python_seconds", "import_seconds", "load_seconds", "first_seconds", "seconds")
    rows = []
    for way in dict.fromkeys(each.way for each in report.fresh):
        runs = [each for each in report.fresh if each.way == way]
        medians = [statistics.median(getattr(each, name) for each in runs) for name in names]
        memory = (runs[0].peak_mib_first, runs[0].peak_mib)
        rows.append([way, *map(_two, medians), *("" if mib is None else f"{mib:.0f}" for mib in memory)])
    header = ["way", "Python starts", "imports", "load", "first text", "all", "peak MiB then", "after the workload"]
    return "A fresh process, seconds", header, rows


def _two(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _stages(report: BundleReport) -> Table:
    stages = report.stages
    parts = {"tokenize": stages.tokenize, "run": stages.run, "padding, at most": stages.padding, "rest": stages.rest}
    total = sum(parts.values())
    rows = [[name, f"{value:.3f}", f"{100 * value / total:.1f} %"] for name, value in parts.items()]
    return f"Where the time of the workload goes, {report.precision}, one core", ["stage", "seconds", "share"], rows


def _profile(report: BundleReport) -> Table:
    rows = [
        [each.name, f"{each.seconds:.3f}", f"{100 * each.share:.1f} %", str(each.calls)]
        for each in report.profile or ()
    ]
    return "Where a run's time goes, one core", ["operator", "seconds", "share", "calls"], rows


def _plots(report: BundleReport) -> Iterator[str]:
    with _figure() as (axes, picture):
        for name in dict.fromkeys(each.way for each in report.latency):
            single = [each for each in report.latency if each.way == name and each.texts == 1]
            axes.plot([each.tokens for each in single], [each.p50_ms for each in single], marker="o", label=name)
        axes.set(xlabel="tokens of one text", ylabel="p50, ms", yscale="log", title="Latency by length")
        axes.legend()
    yield picture.getvalue()
    served = [each for each in report.load if each.p50_ms is not None]
    with _figure() as (axes, picture):
        for name in ("p50_ms", "p99_ms", "queue_ms"):
            values = [getattr(each, name) for each in served]
            label = {"queue_ms": "in the queue, mean"}.get(name, name.removesuffix("_ms"))
            axes.plot([each.offered for each in served], values, marker="o", label=label)
        axes.set(xlabel="texts a second offered", ylabel="ms", yscale="log", title="Latency under open-loop load")
        axes.legend()
    yield picture.getvalue()
    with _figure() as (axes, picture):
        left = 0.0
        for name, milliseconds in _time_of_a_text(report).items():
            axes.barh(["a text"], [milliseconds], left=left, label=name)
            left += milliseconds
        axes.set(xlabel="ms, mean", title="Where the time of a text goes: one core, and the queue of the service")
        axes.legend()
    yield picture.getvalue()
    with _figure() as (axes, picture):
        for way in report.ways:
            if way.name == EAGER or way.cosine_mean is not None:
                texts_a_second = report.texts / statistics.median(way.seconds)
                axes.scatter([texts_a_second], [way.cosine_mean or 1.0], label=way.name)
        axes.set(xlabel="texts a second", ylabel="mean cosine to eager PyTorch", title="Speed against fidelity")
        axes.legend()
    yield picture.getvalue()


def _time_of_a_text(report: BundleReport) -> dict[str, float]:
    """In milliseconds: on one core, and the queue at the highest rate that the service keeps up with."""
    stages = report.stages
    parts = {
        "tokenization": stages.tokenize,
        "padding, at most": stages.padding,
        "run": stages.run,
        "rest": stages.rest,
    }
    queues = [each.queue_ms for each in report.load if each.served >= 0.95 * each.offered]
    return {name: 1e3 * seconds / report.texts for name, seconds in parts.items()} | {"queue": max(queues, default=0.0)}


@contextmanager
def _figure() -> Iterator[tuple[Any, io.StringIO]]:
    """Axes to draw on, and what holds the picture afterwards."""
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
    return html.escape(text)


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem; border-bottom: 1px solid #ddd; text-align: right }}
th:first-child, td:first-child {{ text-align: left }} figure {{ display: inline-block; margin: 0 1rem 1rem 0 }}
</style></head><body><h1>{title}</h1><p>{about}</p>{body}</body></html>
"""
