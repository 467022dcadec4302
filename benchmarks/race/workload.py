"""Texts of very mixed length, as a search service gets them, from the folder `examples`."""

import csv
import json
import random
from collections.abc import Iterator
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
_COUNTS = {"sentences": 560, "messages": 420, "posts": 420, "questions": 300, "paragraphs": 120}
"""Number of texts by kind; half of all texts have fewer than about 16 tokens, one in twenty has more than 150."""


def mixed_texts(seed: int = 13) -> list[str]:
    """Return 1,820 texts in random order, from STS-B, Banking77, WNUT-17, and questions and paragraphs of XQuAD."""
    draw = random.Random(seed)  # noqa: S311 - no secret
    kinds = {
        "sentences": (row["text"] for row in _rows(EXAMPLES / "stsb/dev.csv")),
        "messages": (row["text"] for row in _rows(EXAMPLES / "banking77/test.csv")),
        "posts": _posts(EXAMPLES / "wnut17/dev.conll"),
        "questions": (question for _, questions in _paragraphs() for question in questions),
        "paragraphs": (context for context, _ in _paragraphs()),
    }
    texts = [text for kind, texts in kinds.items() for text in draw.sample(sorted(set(texts)), _COUNTS[kind])]
    draw.shuffle(texts)
    return texts


def scored_pairs() -> tuple[list[str], list[str], list[float]]:
    """Return first texts, second texts and human similarity scores of STS-B's development split."""
    rows = list(_rows(EXAMPLES / "stsb/dev.csv"))
    return [row["text"] for row in rows], [row["text_pair"] for row in rows], [float(row["score"]) for row in rows]


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines)


def _posts(file: Path) -> Iterator[str]:
    for post in file.read_text(encoding="utf-8").strip().split("\n\n"):
        yield " ".join(line.split("\t")[0] for line in post.splitlines())


def _paragraphs() -> Iterator[tuple[str, list[str]]]:
    for name in ("train", "test"):
        articles = json.loads((EXAMPLES / f"xquad/{name}.json").read_text(encoding="utf-8"))["data"]
        for paragraph in (paragraph for article in articles for paragraph in article["paragraphs"]):
            yield paragraph["context"], [entry["question"] for entry in paragraph["qas"]]
