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


def main(checkpoint: str, bundle: str) -> None:
    with TEST.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    texts, expected = [row["text"] for row in rows], [row["label"] for row in rows]
    eager, threads = Eager(checkpoint), torch.get_num_threads()
    with (
        encort.load(bundle, precision="fp32", threads=threads) as fp32,
        encort.load(bundle, precision="int8", threads=threads) as int8,
    ):
        systems = {"eager PyTorch": eager, "encort fp32": served(fp32), "encort int8": served(int8)}
        scores = [system(texts) for system in systems.values()]
        one = medians(list(systems.values()), [[text] for text in texts[:100]], "one message at a time")
        many = medians(list(systems.values()), [texts] * 3, f"{len(texts)} messages at once")
        labels = fp32.head().labels
    print_table(
        ["", *systems],
        ["accuracy", *(percent(each, labels, expected) for each in scores)],
        ["one message", *(f"{1e3 * each:.2f} ms ({one[0] / each:.1f}x)" for each in one)],
        [f"{len(texts)} messages", *(f"{len(texts) / each:.0f} a second ({many[0] / each:.1f}x)" for each in many)],
        ["probabilities", *(f"within {np.abs(each - scores[0]).max():.0e}" for each in scores)],
    )
    print(f"\nmedians; {threads} threads for all, in turn; tokenization included; eager in batches of {BATCH}")
    print(f"bundle: {bundle}")


System = Callable[[list[str]], np.ndarray]
"""Texts to probabilities, `(n, labels)`."""


def served(model: encort.Model) -> System:
    return lambda texts: np.array([list(result.scores.values()) for result in model.classify(texts)])


class Eager:
    """The checkpoint as most services run it: transformers, in batches in the order of arrival."""

    def __init__(self, checkpoint: str) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        self.model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> np.ndarray:
        """Probabilities, `(n, labels)`."""
        scores = []
        for start in range(0, len(texts), BATCH):
            batch = self.tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            scores.append(self.model(**batch).logits.softmax(-1).numpy())
        return np.concatenate(scores)


def medians(systems: list[System], work: list[list[str]], what: str) -> list[float]:
    """Median seconds of each system, in turn on each piece of work."""
    seconds: list[list[float]] = [[] for _ in systems]
    for piece in tqdm(work, desc=what, disable=None):
        for system, measured in zip(systems, seconds, strict=True):
            start = time.perf_counter()
            system(piece)
            measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in seconds]


def percent(scores: np.ndarray, labels: list[str], expected: list[str]) -> str:
    found = [labels[index] for index in scores.argmax(1)]
    return f"{100 * statistics.mean(a == b for a, b in zip(found, expected, strict=True)):.2f} %"


def print_table(*rows: list[str]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(*sys.argv[1:])
