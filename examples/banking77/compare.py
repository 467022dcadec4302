"""Compare a checkpoint in eager PyTorch with its bundle: accuracy, difference and speed, in one run.

python examples/banking77/compare.py CHECKPOINT BUNDLE
"""

import csv
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import encort

TEST = Path(__file__).with_name("test.csv")
BATCH = 32
"""Messages per batch of eager PyTorch."""
CALL = 128
"""Messages per timed call with many messages."""
SINGLE_CALLS = 50


def main(checkpoint: str, bundle: str) -> None:
    """Print the comparison."""
    with TEST.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts, expected = [row["text"] for row in rows], [row["label"] for row in rows]
    threads = torch.get_num_threads()
    with (
        encort.load(bundle, precision="fp32", threads=threads) as fp32,
        encort.load(bundle, precision="int8", threads=threads) as int8,
    ):
        systems: dict[str, System] = {
            "eager PyTorch": Eager(checkpoint),
            "encort fp32": served(fp32),
            "encort int8": served(int8),
        }
        timed = list(systems.values())
        run_in_turn(timed, [texts[:BATCH], texts[:1], texts[1:2]], "first calls, which are slower")
        durations, _ = run_in_turn(timed, [[text] for text in texts[:SINGLE_CALLS]], "one message at a time")
        one = [statistics.median(measured) for measured in durations]
        calls = [texts[start : start + CALL] for start in range(0, len(texts), CALL)]
        durations, probabilities = run_in_turn(timed, calls, "many messages at a time")
        many = [sum(measured) for measured in durations]
        labels = fp32.head().labels
    print_table(
        ["", *systems],
        ["accuracy", *(accuracy(array, labels, expected) for array in probabilities)],
        ["one message", *(f"{1e3 * seconds:.2f} ms ({one[0] / seconds:.1f}x)" for seconds in one)],
        [f"{len(texts)} messages", *(f"{len(texts) / seconds:.0f}/s ({many[0] / seconds:.1f}x)" for seconds in many)],
        ["probabilities", *(f"within {np.abs(array - probabilities[0]).max():.0e}" for array in probabilities)],
    )
    print(f"\nsystems in turn, {threads} threads each, tokenization included")
    print(f"one message: medians of {SINGLE_CALLS} calls")
    print(f"{len(texts)} messages: in calls of {CALL}; eager PyTorch in batches of {BATCH}")
    print(f"bundle: {bundle}")


System = Callable[[list[str]], np.ndarray]
"""Function from texts to probabilities, `(texts, labels)`."""


def served(model: encort.Model) -> System:
    """Return the bundle as a system."""
    return lambda texts: np.array([list(result.scores.values()) for result in model.classify(texts)])


class Eager:
    """The checkpoint in transformers, as most services run it: in batches, in the order of the texts."""

    def __init__(self, checkpoint: str) -> None:
        """Load the checkpoint from its folder."""
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> np.ndarray:
        """Return probabilities, `(texts, labels)`."""
        probabilities = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            probabilities.append(self.model(**batch).logits.softmax(-1).numpy())
        return np.concatenate(probabilities)


def run_in_turn(
    systems: list[System], calls: list[list[str]], title: str
) -> tuple[list[list[float]], list[np.ndarray]]:
    """Run every call in all systems in turn.

    Returns:
        For each system, the seconds of each call, and the probabilities of all texts, `(texts, labels)`.
    """
    durations: list[list[float]] = [[] for _ in systems]
    probabilities: list[list[np.ndarray]] = [[] for _ in systems]
    for texts in tqdm(calls, desc=title, disable=None):
        for system, measured, results in zip(systems, durations, probabilities, strict=True):
            start = time.perf_counter()
            results.append(system(texts))
            measured.append(time.perf_counter() - start)
    return durations, [np.concatenate(results) for results in probabilities]


def accuracy(probabilities: np.ndarray, labels: list[str], expected: list[str]) -> str:
    """Return the share of texts whose most probable label is the expected one, in percent."""
    predicted = [labels[index] for index in probabilities.argmax(1)]
    return f"{100 * statistics.mean(a == b for a, b in zip(predicted, expected, strict=True)):.2f} %"


def print_table(*rows: list[str]) -> None:
    """Print rows with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(*sys.argv[1:])
