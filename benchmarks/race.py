"""The race: encort and its peers on the same texts with the same threads, each in its own environment and process.

    python -m encort.benchmarks.race --model minilm
    python -m encort.benchmarks.race --model bert-base --texts 200 --without compile

Every round has all systems, in an order of its own; while one runs, the others are stopped. Tokenization is included.
What comes out is kept in benchmarks/results; `python -m encort.benchmarks.tables` writes it into the documents.
"""

import contextlib
import functools
import itertools
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from encort.benchmarks.machine import Machine
from encort.benchmarks.models import MODELS, TRAINED, operations
from encort.benchmarks.results import FOLDER, Outcome, Race, save
from encort.benchmarks.systems import (
    LIMITS,
    OURS,
    ROOT,
    SYSTEMS,
    Running,
    System,
    SystemFailedError,
    environment,
    prepare,
)
from encort.benchmarks.tables import race_table
from encort.benchmarks.timing import in_turn
from encort.benchmarks.workload import mixed_texts, scored_pairs
from encort.export.exporter import export_bundle
from encort.export.variants import Kind
from encort.runtime.inputs import read_texts
from encort.runtime.session import FloatArray
from encort.runtime.tokenizer import Tokenizer

BUILD = ROOT / "build" / "race"
GRID = {"1 x 16": (1, 16, 20), "1 x 128": (1, 128, 5), "32 x 16": (32, 16, 3), "32 x 128": (32, 128, 1)}
"""Texts of a call, tokens of each, and calls a round."""
CALIBRATION = 300
"""Texts for those that calibrate, from pairs that are not measured."""
PRODUCT = 2 * 2048**3
"""Operations of the product in peers/limits.py."""


class Entrant:
    """A system in the race; once it has failed it runs no more, and says why."""

    def __init__(self, system: System) -> None:
        self.outcome = Outcome(name=system.name, key=system.key, precision=system.precision)
        self._system = system
        self._running: Running | None = None

    @contextlib.contextmanager
    def attempt(self) -> Any:
        """Around what may fail."""
        try:
            yield
        except (SystemFailedError, subprocess.CalledProcessError) as error:
            click.echo(f"{self._system.key}: {error}", err=True)
            self.outcome = replace(self.outcome, error=str(error))
            self.close()

    def start(self, checkpoint: Path, prepared: Path, calibration: Sequence[str], *, threads: int) -> None:
        with self.attempt():
            python = environment(self._system.peer, BUILD / "environments")
            # Ours is one bundle with both precisions, and its environment cannot export.
            folder = prepared / (OURS if self._system.peer == OURS else self._system.key.replace(":", "-"))
            if self._system.peer == OURS:
                _export(checkpoint, folder / "bundle", calibration)
            else:
                prepare(self._system, python, checkpoint=checkpoint, folder=folder, texts=calibration)
            self._running = Running(self._system, python, checkpoint=checkpoint, folder=folder, threads=threads)
            first = self._running.seconds_to_first
            self.outcome = replace(self.outcome, versions=self._running.versions, load_seconds=first)

    def embeddings(self, texts: Sequence[str]) -> FloatArray | None:
        """`(texts, dim)` float32; None if it failed."""
        with self.attempt(), tempfile.TemporaryDirectory() as folder:
            if self._running is not None:
                self._running.run([texts], output=Path(folder) / "found.npy")
                found: FloatArray = np.load(Path(folder) / "found.npy")
                return found
        return None

    def run(self, calls: Sequence[Sequence[str]]) -> list[float]:
        """Seconds of each call; none if it failed."""
        with self.attempt():
            if self._running is not None:
                answer = self._running.run(calls)
                self.outcome = replace(self.outcome, peak_mib=answer["peak_mib"])
                return [*answer["seconds"]]
        return []

    def close(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(list(MODELS)), default="minilm", show_default=True)
@click.option("--workload", type=click.Path(path_type=Path, exists=True), help="Other texts, a table or lines.")
@click.option("--texts", "most", type=int, help="The first so many of the texts.")
@click.option("--threads", default=2, show_default=True, help="For every system.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--without", multiple=True, help="Leave out the systems whose key, name or precision holds this.")
@click.option("--only", multiple=True, help="Leave out all others.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the result; else benchmarks/results.")
def main(
    model: str,
    workload: Path | None,
    most: int | None,
    threads: int,
    rounds: int,
    without: Sequence[str],
    only: Sequence[str],
    output: Path | None,
) -> None:
    texts = (mixed_texts() if workload is None else [str(text) for text in read_texts((), workload, None)])[:most]
    checkpoint = MODELS[model](BUILD)
    lengths = Tokenizer(checkpoint / "tokenizer.json", max_length=256)(texts).lengths
    entrants = [Entrant(system) for system in SYSTEMS if _is_in(system, only, without)]
    limits = [Entrant(system) for system in LIMITS]
    try:
        for entrant in tqdm([*entrants, *limits], desc="start"):
            entrant.start(checkpoint, BUILD / "prepared" / model, _calibration(), threads=threads)
        _judge(entrants, texts, is_trained=model in TRAINED)
        _measure(entrants, limits, texts, rounds=rounds, work=operations(checkpoint, lengths))
    finally:
        for entrant in (*entrants, *limits):
            entrant.close()
    race = Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.race", *sys.argv[1:]]),
        machine=Machine.here(),
        threads=threads,
        model=model,
        workload="mixed texts of the examples" if workload is None else workload.name,
        texts=len(texts),
        tokens=int(lengths.sum()),
        outcomes=[entrant.outcome for entrant in entrants],
        limits=[entrant.outcome for entrant in limits],
    )
    click.echo(race_table(race))
    click.echo(f"kept in {save(race, (output or FOLDER) / race.file_name)}", err=True)


def _is_in(system: System, only: Sequence[str], without: Sequence[str]) -> bool:
    words = f"{system.key} {system.name} {system.precision}"
    return not any(word in words for word in without) and (not only or any(word in words for word in only))


def _calibration() -> list[str]:
    rows = read_texts((), ROOT / "examples" / "stsb" / "train.csv", "text")
    return sorted({str(text) for text in rows})[::10][:CALIBRATION]


def _export(checkpoint: Path, output: Path, calibration: Sequence[str]) -> None:
    export_bundle(checkpoint, output, variants=[Kind.FP32, Kind.INT8], calibration=calibration, overwrite=True)


def _judge(entrants: Sequence[Entrant], texts: Sequence[str], *, is_trained: bool) -> None:
    """Compare all embeddings with those of the first system, which is eager PyTorch in float32; a warm-up as well."""
    reference: FloatArray | None = None
    first, second, scores = scored_pairs()
    for entrant in tqdm(entrants, desc="judge"):
        found = entrant.embeddings(texts)
        if found is None:
            continue
        if reference is None and entrant.outcome.key == SYSTEMS[0].key:
            reference = found
        if reference is not None:
            cosines = (found * reference).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
            entrant.outcome = replace(
                entrant.outcome, cosine_mean=float(cosines.mean()), cosine_min=float(cosines.min())
            )
        pairs = entrant.embeddings([*first, *second]) if is_trained else None
        if pairs is not None:
            alike = (pairs[: len(first)] * pairs[len(first) :]).sum(1)
            entrant.outcome = replace(entrant.outcome, spearman=100 * float(spearmanr(alike, scores)[0]))


def _measure(
    entrants: Sequence[Entrant], limits: Sequence[Entrant], texts: Sequence[str], *, rounds: int, work: float
) -> None:
    grid = [[_text(tokens)] * rows for rows, tokens, calls in GRID.values() for _ in range(calls)]
    ways = {entrant.outcome.key: functools.partial(entrant.run, [texts, *grid]) for entrant in entrants}
    ways |= {entrant.outcome.key: functools.partial(entrant.run, [["a product"]] * 5) for entrant in limits}
    seconds = in_turn(ways, rounds=rounds)
    for entrant in entrants:
        found = [each for each in seconds[entrant.outcome.key] if each]
        if entrant.outcome.error is None:
            entrant.outcome = replace(entrant.outcome, seconds=[each[0] for each in found], grid=_by_shape(found))
    for entrant in limits:
        products = [statistics.median(each) for each in seconds[entrant.outcome.key] if each]
        entrant.outcome = replace(entrant.outcome, seconds=[each * work / PRODUCT for each in products])


def _text(tokens: int) -> str:
    """A text of that many tokens, two special ones among them."""
    return " ".join(["card"] * (tokens - 2))


def _by_shape(rounds: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Median seconds of the calls of each shape, one a round, of what a system gave for the workload and the grid."""
    counts = [calls for *_, calls in GRID.values()]
    ends = [1, *(1 + sum(counts[: index + 1]) for index in range(len(counts)))]
    return {
        shape: [statistics.median(each[start:stop]) for each in rounds]
        for shape, (start, stop) in zip(GRID, itertools.pairwise(ends), strict=True)
    }


if __name__ == "__main__":
    main()
