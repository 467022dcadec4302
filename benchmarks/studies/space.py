"""Measure how far the vectors of a model may move before old and new ones find other neighbours.

python benchmarks/studies/space.py CHECKPOINT TEXTS.csv

TEXTS.csv has the column text. The checkpoint is compared with copies whose weights were rounded, or fine-tuned for a
few steps (SimCSE, Gao et al. 2021). `encort compat` gives the differences. For the last column, queries of the copy
search vectors of the checkpoint: the share of the ten nearest neighbours that the checkpoint's own queries find too.
"""

import argparse
import copy
import logging
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy, normalize

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.output.markdown import table
from encort.runtime.common.tables.rows import read_rows

NEIGHBOURS = 10
CORPUS, QUERIES, BATCH = 600, 100, 16
STEPS = (1, 3, 10, 30)
"""Steps of fine-tuning after which the copy is compared."""


def main(checkpoint: Path, texts_file: Path) -> None:
    """Print a table with one row per copy of the checkpoint."""
    texts = [str(row["text"]) for row in read_rows(texts_file)]
    random.Random(0).shuffle(texts)  # noqa: S311 - no secret
    corpus, queries, training = np.split(np.array(texts), [CORPUS, CORPUS + QUERIES])
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        old = export_bundle(str(checkpoint), folder / "old.bundle", variants=["fp32"]).folder
        vectors = embed(old, corpus.tolist())
        expected = nearest(embed(old, queries.tolist()), vectors)
        for label, model in copies(checkpoint, training.tolist()):
            new = export_copy(checkpoint, model, folder / label)
            result = encort.compat(old, new)
            found = nearest(embed(new, queries.tolist()), vectors)
            kept = np.mean([len(set(a) & set(b)) for a, b in zip(expected, found, strict=True)])
            numbers = f"{result.difference:.4f}", f"{result.difference_of_angles:.4f}", f"{kept / NEIGHBOURS:.1%}"
            rows.append([label, result.verdict, *numbers])
    print(f"{len(corpus)} texts, {len(queries)} queries\n")
    print("\n".join(table(["copy", "verdict", "difference", "of angles", "neighbours kept"], rows)))


def copies(checkpoint: Path, texts: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield copies of the model with rounded weights, and after some steps of fine-tuning."""
    model = transformers.AutoModel.from_pretrained(checkpoint, dtype=torch.float32)
    for dtype in (torch.float16, torch.bfloat16):
        yield str(dtype).removeprefix("torch."), copy.deepcopy(model).to(dtype).float()
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5)
    torch.manual_seed(0)
    model.train()
    for step in range(1, STEPS[-1] + 1):
        batch = list(texts[(step - 1) * BATCH : step * BATCH])
        tokens = tokenizer(batch, padding=True, return_tensors="pt")
        first, second = pooled(model, tokens), pooled(model, tokens)  # dropout makes them differ
        optimizer.zero_grad()
        loss: Any = cross_entropy(20 * first @ second.T, torch.arange(len(batch)))
        loss.backward()
        optimizer.step()
        if step in STEPS:
            yield f"steps of fine-tuning: {step}", model


def pooled(model: Any, tokens: Any) -> torch.Tensor:
    """Return the normalized mean of the hidden states, `(batch, hidden)`."""
    mask = tokens["attention_mask"].unsqueeze(-1)
    return normalize((model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1), dim=-1)


def export_copy(checkpoint: Path, model: Any, folder: Path) -> Path:
    """Export the checkpoint with the weights of a model, and return the folder of the bundle."""
    shutil.copytree(checkpoint, folder)
    model.save_pretrained(folder)
    return export_bundle(str(folder), folder.with_suffix(".bundle"), variants=["fp32"]).folder


def embed(bundle: Path, texts: list[str]) -> FloatArray:
    """Return the embeddings of texts, `(n, dim)`."""
    with encort.load(bundle) as model:
        return model.embed(texts)


def nearest(queries: FloatArray, vectors: FloatArray) -> list[list[int]]:
    """Return the rows of the nearest vectors of each query."""
    order: list[list[int]] = np.argsort(-queries @ vectors.T, axis=1)[:, :NEIGHBOURS].tolist()
    return order


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("texts", type=Path)
    arguments = parser.parse_args()
    logging.getLogger("encort").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    main(arguments.checkpoint, arguments.texts)
