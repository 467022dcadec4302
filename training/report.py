"""What a training gave: a JSON file for programs, a page with pictures for people."""

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from encort.training.prepare import Prepared
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import Scores

REPORT_FILE = "training.json"
PAGE_FILE = "training.md"
LOSS_FILE = "loss.svg"
CONFUSION_FILE = "confusion.svg"
_TOOLS = ("encort", "torch", "transformers", "datasets")
_MOST_NAMES = 40
"""Labels that can be read beside a confusion matrix."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a training run gave.

    Attributes:
        task: What was trained.
        model: What it began with.
        checkpoint: Folder with weights, tokenizer, label names and this report.
        metrics: By split, `validation` and where there is one `test`; as fractions.
        by_label: Scores of every label, of the last of these splits.
        confusion: What was taken for what there, by right and found label.
        rows: Examples of each split.
        label_counts: Training examples of every label.
        labels: In the order of the logits.
        seconds: Wall-clock time of the training.
        history: What was logged: `epoch` with `loss`, or with `eval_loss` and metrics.
        settings: What was set.
        versions: Of the tools.
    """

    task: str
    model: str
    checkpoint: str
    metrics: Mapping[str, Mapping[str, float]]
    by_label: Mapping[str, Mapping[str, float]]
    confusion: Mapping[str, Mapping[str, int]]
    rows: Mapping[str, int]
    label_counts: Mapping[str, int]
    labels: Sequence[str]
    seconds: float
    history: Sequence[Mapping[str, float]]
    settings: TrainingSettings
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in _TOOLS})

    @classmethod
    def of(
        cls,
        prepared: Prepared,
        scores: Mapping[str, Scores],
        *,
        checkpoint: Path,
        state: Any,
        settings: TrainingSettings,
    ) -> "TrainingReport":
        """What a training that has ended gave.

        Args:
            scores: By split.
            state: Of transformers' trainer.
        """
        task, examples, shown = prepared.task, prepared.examples, list(scores.values())[-1]
        return cls(
            task=task.name,
            model=prepared.pretrained.name,
            checkpoint=str(checkpoint),
            metrics={split: found.metrics for split, found in scores.items()},
            by_label=shown.by_label,
            confusion=_confusion(shown, shown.confusion_labels or examples.labels),
            rows={split: len(rows) for split, rows in examples.splits.items()},
            label_counts=dict(task.counts(examples.train)),
            labels=list(examples.labels),
            seconds=round(sum(entry.get("train_runtime", 0) for entry in state.log_history), 1),
            history=state.log_history,
            settings=settings,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """What fits on a line."""
        return {name: getattr(self, name) for name in ("checkpoint", "metrics", "rows", "seconds")}


def write_report(report: TrainingReport, folder: Path) -> None:
    """Write `training.json`, and `training.md` with pictures of the loss and of what was taken for what."""
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    _draw_loss(report.history, folder / LOSS_FILE)
    if report.confusion:
        _draw_confusion(report.confusion, folder / CONFUSION_FILE)
    (folder / PAGE_FILE).write_text("\n".join(_page(report)) + "\n", encoding="utf-8")


def _page(report: TrainingReport) -> list[str]:
    names, split = list(next(iter(report.metrics.values()))), list(report.metrics)[-1]
    lines = [
        f"# {report.task}, from {report.model}",
        "",
        f"Trained on {report.rows['train']} examples in {report.seconds:.0f} s.",
        "",
        *_table(
            ["split", "examples", *names],
            [
                [each, report.rows[each], *(f"{100 * value:.2f} %" for value in found.values())]
                for each, found in report.metrics.items()
            ],
        ),
        "",
        f"![loss]({LOSS_FILE})",
    ]
    if report.by_label:
        rows = [
            [label, *(f"{100 * row[name]:.1f} %" for name in ("precision", "recall", "f1-score")), int(row["support"])]
            for label, row in report.by_label.items()
        ]
        lines += ["", f"## Labels ({split})", "", *_table(["label", "precision", "recall", "F1", "examples"], rows)]
    if report.confusion:
        lines += ["", f"## What was taken for what ({split})", "", f"![confusion]({CONFUSION_FILE})"]
        lines += ["", *_table(["right", "found", "examples"], _mistakes(report.confusion))]
    if report.label_counts:
        lines += ["", "## Training examples of each label", ""]
        lines += _table(["label", "examples"], sorted(report.label_counts.items(), key=lambda item: -item[1]))
    settings = [[name, value] for name, value in asdict(report.settings).items()]
    return [*lines, "", "## Settings", "", *_table(["setting", "value"], settings)]


def _confusion(scores: Scores, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    if scores.confusion is None:
        return {}
    return {
        label: dict(zip(labels, row.tolist(), strict=True)) for label, row in zip(labels, scores.confusion, strict=True)
    }


def _mistakes(confusion: Mapping[str, Mapping[str, int]], most: int = 10) -> list[tuple[str, str, int]]:
    """The most frequent ones."""
    wrong = [(a, b, count) for a, row in confusion.items() for b, count in row.items() if a != b and count]
    return sorted(wrong, key=lambda mistake: -mistake[2])[:most]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: Sequence[Any]) -> str:
    plain = (" ".join(str(cell).split()).replace("|", "&#124;") for cell in cells)
    return f"| {' | '.join(plain)} |"


def _draw_loss(history: Sequence[Mapping[str, float]], file: Path) -> None:
    with _figure(6, 3.5, file) as axes:
        for name, label in (("loss", "training"), ("eval_loss", "validation")):
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            epochs, losses = [epoch for epoch, _ in points], [loss for _, loss in points]
            axes.plot(epochs, losses, label=label, marker="o" if label == "validation" else None)
        axes.set(xlabel="epoch", ylabel="loss")
        axes.legend()


def _draw_confusion(confusion: Mapping[str, Mapping[str, int]], file: Path) -> None:
    labels, counts = list(confusion), np.array([list(row.values()) for row in confusion.values()])
    size = 3 + 0.2 * min(len(labels), _MOST_NAMES)
    with _figure(size, size, file) as axes:
        axes.imshow(counts / np.maximum(1, counts.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
        axes.set(xlabel="found", ylabel="right")
        if len(labels) <= _MOST_NAMES:
            axes.set_xticks(range(len(labels)), labels, rotation=90, parse_math=False)
            axes.set_yticks(range(len(labels)), labels, parse_math=False)


@contextlib.contextmanager
def _figure(width: float, height: float, file: Path) -> Iterator[Any]:
    """Axes to draw on; text stays text, so that whoever looks at it has the letters of its language."""
    import matplotlib
    from matplotlib.figure import Figure  # without a window, and without the state of pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "encort"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        figure.savefig(file, metadata={"Date": None})
