"""Report on a training: a JSON file for programs, and a page with pictures for people."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from encort.runtime.common.extras import installed_versions
from encort.runtime.common.output.escaping import dump_json
from encort.runtime.common.output.markdown import escape, table
from encort.training.pictures import MAX_NAMES, draw_confusion, draw_loss
from encort.training.prepare import Prepared
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import MEAN, Scores

REPORT_FILE = "training.json"
PAGE_FILE = "training.md"
LOSS_FILE = "loss.svg"
CONFUSION_FILE = "confusion.svg"
_TOOLS = ("encort", "torch", "transformers", "datasets")
_MAX_PAIRS = 20
"""Most pairs of confused labels that the page lists."""


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """Result of a training run, for one head.

    Attributes:
        task: Name of the task.
        model: Checkpoint folder or hub id of the encoder that it started from.
        checkpoint: Folder with weights, tokenizer, label names and this report.
        metrics: Metrics by split, as in `Scores`: `validation`, and `test` if there is one.
        by_label: Scores of every label on the last of these splits.
        confusion: Counts on that split, by right label and then by predicted label.
        rows: Number of examples in each split.
        label_counts: Number of training examples of each label.
        labels: Names of the labels, in the order of the logits.
        seconds: Wall-clock time of the training.
        history: Log entries, each with `epoch`, and with `loss` or with `eval_loss` and metrics.
        settings: Settings of the run.
        options: Options of the task's own.
        versions: Versions of the tools, by name.
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
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions(_TOOLS))

    @classmethod
    def from_scores(
        cls,
        prepared: Prepared,
        scores: Mapping[str, Scores],
        *,
        checkpoint: Path,
        history: Sequence[Mapping[str, float]],
        settings: TrainingSettings,
    ) -> "TrainingReport":
        """Make the report of a head whose training has ended.

        Args:
            prepared: The head and its examples.
            scores: Scores by split; labels and confusion are reported for the last one.
            checkpoint: Folder of its checkpoint.
            history: Log of `transformers.Trainer`.
            settings: Settings of the run.
        """
        task, examples, last = prepared.task, prepared.examples, list(scores.values())[-1]
        return cls(
            task=task.name,
            model=prepared.pretrained.name,
            checkpoint=str(checkpoint),
            metrics={split: scores_of_split.metrics for split, scores_of_split in scores.items()},
            by_label=last.by_label,
            confusion=_confusion_by_name(last, last.confusion_labels or examples.labels),
            rows={split: len(rows) for split, rows in examples.splits.items()},
            label_counts=dict(task.counts(examples.train)),
            labels=list(examples.labels),
            seconds=round(sum(entry.get("train_runtime", 0) for entry in history), 1),
            history=history,
            settings=settings,
            options=task.options,
        )

    @property
    def summary(self) -> dict[str, Any]:
        """The most important values, short enough for one line."""
        return {name: getattr(self, name) for name in ("checkpoint", "metrics", "rows", "seconds")}


def write_report(report: TrainingReport, folder: Path) -> None:
    """Write `training.json`, and `training.md` with its pictures: the losses, and the confusion of a few labels."""
    text = dump_json(asdict(report), indent=2) + "\n"
    (folder / REPORT_FILE).write_text(text, encoding="utf-8")
    draw_loss(report.history, folder / LOSS_FILE)
    if _has_matrix(report):
        title = f"Labels of the {list(report.metrics)[-1]} data"
        draw_confusion(report.confusion, folder / CONFUSION_FILE, title=title)
    (folder / PAGE_FILE).write_text("\n".join(_page(report)) + "\n", encoding="utf-8")


def _page(report: TrainingReport) -> list[str]:
    """Return the lines of the page, in Markdown."""
    split = list(report.metrics)[-1]
    lines = [
        f"# {report.task}, from {escape(report.model)}",
        "",
        f"Trained on {report.rows['train']} examples in {report.seconds:.0f} s.",
        "",
        *_metrics_table(report),
        "",
        f"![loss]({LOSS_FILE})",
    ]
    if report.by_label:
        lines += ["", f"## Labels ({split})", "", *_labels_table(report)]
    if report.confusion:
        lines += ["", f"## Most confused labels ({split})", ""]
        lines += [f"![confusion]({CONFUSION_FILE})", ""] if _has_matrix(report) else []
        lines += _confused_table(report.confusion)
    if report.label_counts:
        lines += ["", "## Training examples of each label", ""]
        counts = sorted(report.label_counts.items(), key=lambda item: -item[1])
        lines += table(["label", "examples"], counts)
    settings = {**asdict(report.settings), **report.options}
    rows = [[name, "default" if value is None else value] for name, value in settings.items()]
    return [*lines, "", "## Settings", "", *table(["setting", "value"], rows)]


def _metrics_table(report: TrainingReport) -> list[str]:
    names = list(dict.fromkeys(name for metrics in report.metrics.values() for name in metrics))
    rows = [
        [split, report.rows[split], *(_format(name, metrics[name]) if name in metrics else "" for name in names)]
        for split, metrics in report.metrics.items()
    ]
    return table(["split", "examples", *names], rows)


def _format(name: str, value: float) -> str:
    return f"{value:.1f}" if name.startswith(MEAN) else f"{100 * value:.2f} %"


def _labels_table(report: TrainingReport) -> list[str]:
    rows = [
        [
            label,
            *(f"{100 * scores[name]:.1f} %" for name in ("precision", "recall", "f1-score")),
            int(scores["support"]),
        ]
        for label, scores in report.by_label.items()
    ]
    return table(["label", "precision", "recall", "F1", "examples"], rows)


def _confusion_by_name(scores: Scores, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    if scores.confusion is None:
        return {}
    return {
        label: dict(zip(labels, row.tolist(), strict=True)) for label, row in zip(labels, scores.confusion, strict=True)
    }


def _has_matrix(report: TrainingReport) -> bool:
    """Return whether there is a confusion whose names can be read in a picture."""
    return 0 < len(report.confusion) <= MAX_NAMES


def _confused_table(confusion: Mapping[str, Mapping[str, int]]) -> list[str]:
    """List the pairs of labels with the most mistakes, each with its share of the examples of the true label."""
    pairs = [
        (count, true, predicted, f"{100 * count / sum(row.values()):.1f} %")
        for true, row in confusion.items()
        for predicted, count in row.items()
        if true != predicted and count
    ]
    if not pairs:
        return ["No label was confused with another one."]
    pairs.sort(key=lambda pair: -pair[0])
    header = ["true label", "predicted label", "examples", "of the true label"]
    return table(header, [(true, predicted, count, share) for count, true, predicted, share in pairs[:_MAX_PAIRS]])
