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
    with encort.load(bundle, threads=threads) as model:

        def served(texts: list[str]) -> np.ndarray:
            return np.array([list(result.scores.values()) for result in model.classify(texts)])

        eager_scores, served_scores = eager(texts), served(texts)
        one_eager, one_served = medians(eager, served, [[text] for text in texts[:100]], "one message at a time")
        all_eager, all_served = medians(eager, served, [texts] * 3, f"{len(texts)} messages at once")
        labels = model.head().labels
    print_table(
        ["", "eager PyTorch", "encort", "ratio"],
        ["accuracy", percent(eager_scores, labels, expected), percent(served_scores, labels, expected), ""],
        [
            "one message",
            f"{one_eager * 1e3:.2f} ms",
            f"{one_served * 1e3:.2f} ms",
            ratio(one_eager, one_served),
        ],
        [
            f"{len(texts)} messages",
            f"{len(texts) / all_eager:.0f} a second",
            f"{len(texts) / all_served:.0f} a second",
            ratio(all_eager, all_served),
        ],
    )
    print(f"\nlargest difference of a probability: {np.abs(eager_scores - served_scores).max():.1e}")
    print(f"medians; {threads} threads for both; tokenization included; eager in batches of {BATCH}")
    print(f"bundle: {bundle}")


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


def medians(
    first: Callable[[list[str]], object], second: Callable[[list[str]], object], work: list[list[str]], what: str
) -> tuple[float, float]:
    """Median seconds of both, in turn on each piece of work."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for piece in tqdm(work, desc=what, disable=None):
        for system, measured in zip((first, second), seconds, strict=True):
            start = time.perf_counter()
            system(piece)
            measured.append(time.perf_counter() - start)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def percent(scores: np.ndarray, labels: list[str], expected: list[str]) -> str:
    found = [labels[index] for index in scores.argmax(1)]
    return f"{100 * statistics.mean(a == b for a, b in zip(found, expected, strict=True)):.2f} %"


def ratio(first: float, second: float) -> str:
    return f"{first / second:.1f}x"


def print_table(*rows: list[str]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main(*sys.argv[1:])
