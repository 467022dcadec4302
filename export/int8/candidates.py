"""The candidates of a search, recorded as JSON, as a Markdown table and as a picture."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from encort.export.int8.model import QuantizedModel
from encort.runtime.bundle.manifest import Metric, Precision, Variant
from encort.runtime.common.output.markdown import escape, table

TABLE_FILE = "search.md"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A graph that the search has measured.

    Attributes:
        precision: `fp32` or `int8`.
        smoothing: How smoothing was chosen; None for fp32.
        excluded: Groups of layers in full precision, by the name of each group's first layer.
        metric: Metric on the labelled data, in percent.
        drop: Points of the metric that it lost.
        latency_ms: Median time per text, with one worker per core.
        speedup: Speed relative to fp32 in the same rounds.
        chosen: Whether it is the bundle's first choice.
    """

    precision: Precision
    smoothing: str | None
    excluded: Sequence[str]
    metric: float
    drop: float
    latency_ms: float
    speedup: float
    chosen: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizationSearch:
    """Result of a search.

    Attributes:
        metric: Name of the metric.
        examples: Number of labelled examples.
        max_drop: Points of the metric that a candidate may lose.
        candidates: All candidates; the first is the model in full precision.
        model: The chosen int8 model; None if no candidate was both faster and within `max_drop`.
    """

    metric: str
    examples: int
    max_drop: float
    candidates: Sequence[Candidate]
    model: QuantizedModel | None

    def certificate(self, variant: Variant, variants: Sequence[Variant]) -> Metric | None:
        """Return the metric of one of the bundle's variants; None if it was not measured.

        The search has measured the first variant of each precision.
        """
        if variant is not next(other for other in variants if other.precision is variant.precision):
            return None
        measured = [candidate for candidate in self.candidates if candidate.precision is variant.precision]
        chosen = [candidate for candidate in measured if candidate.chosen] or measured[:1]
        if not chosen:
            return None
        before, after = self.candidates[0].metric, chosen[0].metric
        return Metric(name=self.metric, before=before, after=after, examples=self.examples)

    def table(self) -> str:
        """Return the candidates as a Markdown table with the chosen one marked, and what this one leaves in fp32."""
        names = ("precision", "smoothing", "tensors in fp32", f"{self.metric}, %", "drop", "ms per text", "speed", "")
        lines = table(names, [*map(_cells, self.candidates)])
        if left := [name for candidate in self.candidates if candidate.chosen for name in candidate.excluded]:
            lines += ["", f"int8 leaves in fp32 what lost most: {', '.join(map(escape, left))}"]
        return "\n".join(lines)

    def save(self, folder: Path) -> None:
        """Write the candidates as JSON, as a Markdown table and as a picture."""
        record = {key: value for key, value in vars(self).items() if key not in ("candidates", "model")}
        record["candidates"] = [asdict(candidate) for candidate in self.candidates]
        (folder / "search.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        (folder / TABLE_FILE).write_text(self.table() + "\n", encoding="utf-8")
        _plot(self, folder / "search.svg")


def _cells(candidate: Candidate) -> Sequence[str]:
    return (
        candidate.precision,
        candidate.smoothing or "",
        "all" if candidate.precision is Precision.FP32 else str(len(candidate.excluded)),
        f"{candidate.metric:.2f}",
        f"{candidate.drop:.2f}",
        f"{candidate.latency_ms:.2f}",
        f"{candidate.speedup:.1f}x",
        "chosen" if candidate.chosen else "",
    )


def _plot(search: QuantizationSearch, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for candidate in search.candidates:
        point = (1 / candidate.speedup, candidate.metric)
        is_within = candidate.drop <= search.max_drop
        axes.scatter(
            *point,
            s=140 if candidate.chosen else 50,
            marker="*" if candidate.chosen else "o",
            color="tab:green" if is_within else "tab:red",
        )
        label = (
            candidate.precision
            if candidate.smoothing is None
            else f"{candidate.smoothing}, {len(candidate.excluded)} in fp32"
        )
        axes.annotate(label, point, xytext=(5, 4), textcoords="offset points", fontsize=7)
    limit = search.candidates[0].metric - search.max_drop
    axes.axhline(limit, color="gray", linestyle="--", linewidth=1, label=f"{search.max_drop} points lost")
    axes.legend(loc="lower right", fontsize=8)
    axes.set_xlabel("time per text, relative to fp32 in the same rounds")
    axes.margins(x=0.2)
    axes.set_ylabel(f"{search.metric}, %")
    axes.set_title(
        f"{search.metric} on {search.examples} examples by time per text; green: allowed, star: chosen", fontsize=9
    )
    figure.savefig(file)
