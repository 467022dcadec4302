"""Pictures of a training report, as SVG: the losses, and which labels are confused."""

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encort.runtime.common.output.escaping import printable

MAX_NAMES = 30
"""Most labels whose names can be read beside a confusion matrix."""
_MAX_COUNTS = 12
"""Most labels for which the counts fit into the cells."""


def draw_loss(history: Sequence[Mapping[str, float]], file: Path) -> None:
    """Draw the losses over the epochs.

    Args:
        history: Log entries with `epoch`, and with `loss` or `eval_loss`.
        file: File to write.
    """
    with _figure(6, 3.5, file) as axes:
        for name, label in (("loss", "training"), ("eval_loss", "validation")):
            points = [(entry["epoch"], entry[name]) for entry in history if name in entry]
            epochs, losses = [epoch for epoch, _ in points], [loss for _, loss in points]
            axes.plot(epochs, losses, label=label, marker="o" if label == "validation" else None)
        axes.set(title="Loss by epoch", xlabel="epoch", ylabel="loss")
        axes.legend()


def draw_confusion(confusion: Mapping[str, Mapping[str, int]], file: Path, *, title: str) -> None:
    """Draw a matrix whose rows are true labels; the colour is the share of the row.

    Args:
        confusion: Counts by true label, and then by predicted label; at most `MAX_NAMES` labels.
        file: File to write.
        title: Title of the picture.
    """
    labels, counts = list(confusion), np.array([list(row.values()) for row in confusion.values()])
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    size, names = 3.5 + 0.25 * len(labels), [printable(label) for label in labels]
    with _figure(size, size, file) as axes:
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axes.set(title=title, xlabel="predicted label", ylabel="true label")
        axes.set_xticks(range(len(labels)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(labels)), names, parse_math=False)
        if len(labels) <= _MAX_COUNTS:
            for (row, column), count in np.ndenumerate(counts):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", color=colour)


@contextlib.contextmanager
def _figure(width: float, height: float, file: Path) -> Iterator[Any]:
    """Give axes to draw on, and save them as SVG.

    Text stays text, so that a viewer draws it with its own fonts: matplotlib's own lacks most scripts.
    """
    import matplotlib
    from matplotlib.figure import Figure  # needs neither a window nor the global state of pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "encort"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        figure.savefig(file, metadata={"Date": None})
