"""What a training gave: a JSON file for programs, a page with pictures for people."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from encort.training.settings import TrainingSettings
from encort.training.task import Scores

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
    rows: Mapping[str, int]
    label_counts: Mapping[str, int]
    labels: Sequence[str]
    seconds: float
    history: Sequence[Mapping[str, float]]
    settings: TrainingSettings
    versions: Mapping[str, str] = field(default_factory=lambda: {name: version(name) for name in _TOOLS})

    @property
    def summary(self) -> dict[str, Any]:
        """What fits on a line."""
        return {name: getattr(self, name) for name in ("checkpoint", "metrics", "rows", "seconds")}


def write_report(report: TrainingReport, scores: Mapping[str, Scores], folder: Path) -> None:
    """Write `training.json`, and `training.md` with pictures of the loss and of what was taken for what.

    Args:
        scores: By split; the last one is shown in detail.
    """
    text = json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    _draw_loss(report.history, folder / LOSS_FILE)
    split, shown = list(scores.items())[-1]
    if shown.confusion is not None:
        _draw_confusion(shown.confusion, report.labels, folder / CONFUSION_FILE)
    (folder / PAGE_FILE).write_text("\n".join(_page(report, split, shown)) + "\n", encoding="utf-8")


def _page(report: TrainingReport, split: str, shown: Scores) -> list[str]:
    names = list(next(iter(report.metrics.values())))
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
    if shown.by_label:
        rows = [
            [label, *(f"{100 * row[name]:.1f} %" for name in ("precision", "recall", "f1-score")), int(row["support"])]
            for label, row in shown.by_label.items()
        ]
        lines += ["", f"## Labels ({split})", "", *_table(["label", "precision", "recall", "F1", "examples"], rows)]
    if shown.confusion is not None:
        lines += ["", f"## What was taken for what ({split})", "", f"![confusion]({CONFUSION_FILE})"]
        lines += ["", *_table(["right", "found", "examples"], _mistakes(shown.confusion, report.labels))]
    if report.label_counts:
        lines += ["", "## Training examples of each label", ""]
        lines += _table(["label", "examples"], sorted(report.label_counts.items(), key=lambda item: -item[1]))
    settings = [[name, value] for name, value in asdict(report.settings).items()]
    return [*lines, "", "## Settings", "", *_table(["setting", "value"], settings)]


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [_row(header), _row(["---"] * len(header)), *map(_row, rows)]


def _row(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '&#124;') for cell in cells)} |"


def _mistakes(confusion: Any, labels: Sequence[str], most: int = 10) -> list[list[Any]]:
    """The most frequent ones."""
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [np.unravel_index(pair, wrong.shape) for pair in pairs if wrong.flat[pair]]
    return [[labels[row], labels[column], int(wrong[row, column])] for row, column in places]


def _draw_loss(history: Sequence[Mapping[str, float]], file: Path) -> None:
    figure, axes = _figure(6, 3.5)
    for name, label in (("loss", "training"), ("eval_loss", "validation")):
        points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
        epochs, losses = [epoch for epoch, _ in points], [loss for _, loss in points]
        axes.plot(epochs, losses, label=label, marker="o" if label == "validation" else None)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend()
    figure.savefig(file)


def _draw_confusion(confusion: Any, labels: Sequence[str], file: Path) -> None:
    size = 3 + 0.2 * min(len(labels), _MOST_NAMES)
    figure, axes = _figure(size, size)
    axes.imshow(confusion / np.maximum(1, confusion.sum(axis=1, keepdims=True)), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="found", ylabel="right")
    if len(labels) <= _MOST_NAMES:
        axes.set_xticks(range(len(labels)), labels, rotation=90)
        axes.set_yticks(range(len(labels)), labels)
    figure.savefig(file)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # drawn without a window, and without the state of pyplot

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
