"""Compare 8-bit encoders with fp32, in fidelity and speed, for several calibrations, in one run.

python benchmarks/studies/int8.py CHECKPOINT PAIRS.csv [--calibration NAME=FILE ...]

PAIRS.csv has the columns text, text_pair and score. Each calibration file is used with 8-bit weights, the first one
also with 7-bit weights. The built-in texts alone come last. Cosines are to fp32, over all texts of PAIRS.csv.
"""

import argparse
import logging
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy.stats import spearmanr

import encort
from encort.export.exporter import export_bundle
from encort.export.options import VariantName
from encort.runtime.cli.readers import read_texts
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.output.markdown import table
from encort.runtime.common.tables.rows import read_rows

ROUNDS = 5


def main(checkpoint: str, pairs: Path, calibrations: dict[str, Path]) -> None:
    """Export the checkpoint with every calibration, and compare the bundles."""
    rows = list(read_rows(pairs))
    texts = [str(row[name]) for name in ("text", "text_pair") for row in rows]
    scores = [float(row["score"]) for row in rows]
    with TemporaryDirectory() as folder:
        bundles = {"fp32": export(checkpoint, folder, "fp32", ["fp32"])}
        bundles["portable"] = export(checkpoint, folder, "portable", ["portable"])
        for index, (name, file) in enumerate(calibrations.items()):
            texts_of_file = list(read_texts((), file, None))
            for bits in (8, 7) if index == 0 else (8,):
                label = f"int8, {name}, {bits}-bit weights"
                bundles[label] = export(
                    checkpoint, folder, label, ["int8"], calibration=texts_of_file, weight_bits=bits
                )
        label = "int8, built-in texts, 8-bit weights"
        bundles[label] = export(checkpoint, folder, label, ["int8"], weight_bits=8)
        models = {label: encort.load(bundle) for label, bundle in bundles.items()}
        compare(models, texts, scores)
        for model in models.values():
            model.close()


def export(checkpoint: str, folder: str, label: str, variants: list[VariantName], **options: Any) -> Path:
    """Export the checkpoint to a folder that is named after the label, and return the folder."""
    output = Path(folder) / label.replace(" ", "-").replace(",", "")
    return export_bundle(checkpoint, output, variants=variants, **options).folder


def compare(models: dict[str, encort.Model], texts: list[str], scores: list[float]) -> None:
    """Print a table of fidelity and speed, one row per model."""
    vectors = {label: normalized(model.embed(texts)) for label, model in models.items()}
    seconds: dict[str, list[float]] = {label: [] for label in models}
    for _ in range(ROUNDS):
        for label, model in models.items():
            start = time.perf_counter()
            model.embed(texts)
            seconds[label].append(time.perf_counter() - start)
    print(f"{len(texts)} texts; medians of {ROUNDS} rounds, models in turn\n")
    rows = []
    for label, embeddings in vectors.items():
        cosines = (embeddings * vectors["fp32"]).sum(axis=1)
        first, second = np.split(embeddings, 2)
        spearman = 100 * spearmanr((first * second).sum(axis=1), scores)[0]
        speed = statistics.median(a / b for a, b in zip(seconds["fp32"], seconds[label], strict=True))
        seconds_of_label = statistics.median(seconds[label])
        numbers = [(cosines.mean(), ".5f"), (cosines.min(), ".4f"), (spearman, ".2f"), (seconds_of_label, ".2f")]
        rows.append([label, *(f"{number:{form}}" for number, form in numbers), f"{speed:.2f}x"])
    print("\n".join(table(["", "cosine, mean", "min", "Spearman", "seconds", "speed"], rows)))


def normalized(vectors: FloatArray) -> FloatArray:
    """Return the rows divided by their lengths."""
    rows: FloatArray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--calibration", action="append", default=[], metavar="NAME=FILE")
    arguments = parser.parse_args()
    logging.getLogger("encort").setLevel(logging.ERROR)
    named = dict(calibration.split("=", 1) for calibration in arguments.calibration)
    main(arguments.checkpoint, arguments.pairs, {name: Path(file) for name, file in named.items()})
