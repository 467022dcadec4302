"""The race: encort and its peers on the same texts with the same threads, each in its own environment and process.

    python -m encort.benchmarks.race --model minilm
    python -m encort.benchmarks.race --model bert-base --texts 200 --without compile

Every round has all systems, in an order of its own; while one runs, the others are stopped. Tokenization is included.
What comes out is kept in benchmarks/results; `python -m encort.benchmarks.race.tables` writes it into the documents.
"""

import contextlib
import functools
import itertools
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import LIMIT, MODELS, TRAINED, operations
from encort.benchmarks.race.systems import (
    LIMITS,
    OURS,
    ROOT,
    SYSTEMS,
    Running,
    System,
    environment,
    prepare,
)
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.race.workload import mixed_texts, scored_pairs
from encort.benchmarks.results import FOLDER, Outcome, Race, save
from encort.benchmarks.timing import ROUNDS, in_turn
from encort.export.exporter import export_bundle
from encort.export.variants import VariantKind
from encort.runtime.cli.readers import read_texts
from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.tolerance import cosines

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
    def attempt(self) -> Iterator[None]:
        """Around what may fail, in whatever way: the others go on."""
        try:
            yield
        except Exception as error:
            click.echo(f"{self._system.key}: {error}", err=True)
            self.outcome = replace(self.outcome, error=str(error) or type(error).__name__)
            self.close()

    def start(self, stable: "Stable", *, threads: int) -> None:
        with self.attempt():
            python, folder = stable.ready(self._system)
            self._running = Running(self._system, python, checkpoint=stable.checkpoint, folder=folder, threads=threads)
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


class Stable:
    """Environments, and what the systems made of a checkpoint; each is made once in a race."""

    def __init__(self, model: str) -> None:
        self.checkpoint = MODELS[model](BUILD)
        self._prepared = BUILD / "prepared" / model
        self._python = functools.cache(lambda peer: environment(peer, BUILD / "environments"))
        self._bundle = functools.cache(self._exported)

    def ready(self, system: System) -> tuple[Path, Path]:
        """The Python of a system, and the folder with what it serves."""
        python = self._python(system.peer)
        if system.peer == OURS:  # whose environment cannot export, and whose variants are in one bundle
            return python, self._bundle()
        folder = self._prepared / system.key.replace(":", "-")
        prepare(system, python, checkpoint=self.checkpoint, folder=folder, texts=_calibration())
        return python, folder

    def _exported(self) -> Path:
        folder = self._prepared / OURS
        kinds = [VariantKind.FP32, VariantKind.INT8]
        export_bundle(self.checkpoint, folder / "bundle", variants=kinds, calibration=_calibration(), overwrite=True)
        return folder


@click.command(help=__doc__)
@click.option("--model", type=click.Choice(list(MODELS)), default="minilm", show_default=True)
@click.option("--workload", type=click.Path(path_type=Path, exists=True), help="Other texts, a table or lines.")
@click.option("--texts", "most", type=click.IntRange(min=1), help="The first so many of the texts.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="For every system.")
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True)
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
    texts = (mixed_texts() if workload is None else _single_texts(workload))[:most]
    stable = Stable(model)
    lengths = Tokenizer(stable.checkpoint / "tokenizer.json", max_length=LIMIT)(texts).lengths
    reference, limits = Entrant(SYSTEMS[0]), [Entrant(system) for system in LIMITS]
    entrants = [
        reference if system is SYSTEMS[0] else Entrant(system) for system in SYSTEMS if _is_in(system, only, without)
    ]
    everybody = list(dict.fromkeys([reference, *entrants, *limits]))
    try:
        for entrant in tqdm(everybody, desc="start"):
            entrant.start(stable, threads=threads)
        _judge(reference, entrants, texts, is_trained=model in TRAINED)
        _measure(entrants, limits, texts, rounds=rounds, work=operations(stable.checkpoint, lengths))
    finally:
        for entrant in everybody:
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
    click.echo(f"kept in {save(race, (output or FOLDER) / race.file_name)}", err=True)
    click.echo(race_table(race))


def _is_in(system: System, only: Sequence[str], without: Sequence[str]) -> bool:
    words = f"{system.key} {system.name} {system.precision}"
    return not any(word in words for word in without) and (not only or any(word in words for word in only))


def _single_texts(file: Path) -> list[str]:
    texts = [text for text in read_texts((), file, None) if isinstance(text, str)]
    if not texts:
        raise click.UsageError(f"{file} has no single texts")
    return texts


def _calibration() -> list[str]:
    rows = read_texts((), ROOT / "examples" / "stsb" / "train.csv", "text")
    return sorted({str(text) for text in rows})[::10][:CALIBRATION]


def _judge(reference: Entrant, entrants: Sequence[Entrant], texts: Sequence[str], *, is_trained: bool) -> None:
    """Compare all embeddings with those of eager PyTorch in float32; a warm-up as well."""
    first, second, scores = scored_pairs()
    right = reference.embeddings(texts)
    for entrant in tqdm(entrants, desc="judge"):
        with entrant.attempt():
            found = entrant.embeddings(texts)
            if found is not None and right is not None:
                alike = cosines(found, right)
                entrant.outcome = replace(
                    entrant.outcome, cosine_mean=float(alike.mean()), cosine_min=float(alike.min())
                )
            pairs = entrant.embeddings([*first, *second]) if is_trained else None
            if pairs is not None:
                alike = cosines(*np.split(pairs, 2))
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
        if entrant.outcome.error is None:
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
