"""The race: encort and other systems on the same texts with the same threads, each in its own environment and process.

    python -m encort.benchmarks.race --model minilm
    python -m encort.benchmarks.race --model bert-base --texts 200 --without compile

Every round runs all systems, in an order that is drawn for it. While one system runs, the others are stopped.
Tokenization is included. The result goes to benchmarks/results; `python -m encort.benchmarks.race.tables` writes it
into the documents.
"""

import functools
import itertools
import shlex
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from encort.benchmarks.command_help import command_help
from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import LIMIT, MODELS, TRAINED, operations
from encort.benchmarks.race.participants import Participant, SystemFiles
from encort.benchmarks.race.systems import LIMITS, SYSTEMS, System
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.race.workload import mixed_texts, scored_pairs
from encort.benchmarks.results import FOLDER, Race, save
from encort.benchmarks.timing import ROUNDS, measure_in_turn
from encort.runtime.cli.readers import read_texts
from encort.runtime.common.output.terminal import echo
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.tolerance import cosines

GRID = {"1 x 16": (1, 16, 20), "1 x 128": (1, 128, 5), "32 x 16": (32, 16, 3), "32 x 128": (32, 128, 1)}
"""Texts per call, tokens per text, and calls per round."""
PRODUCT = 2 * 2048**3
"""Operations of the product in peers/limits.py."""


@click.command(help=command_help(__doc__))
@click.option("--model", type=click.Choice(list(MODELS)), default="minilm", show_default=True, help="Encoder.")
@click.option(
    "--workload",
    type=click.Path(path_type=Path, exists=True),
    help="File of other texts: a table, or one text per line.",
)
@click.option("--texts", "text_count", type=click.IntRange(min=1), help="Take only this many texts.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="Threads per system.")
@click.option("--rounds", type=click.IntRange(min=1), default=ROUNDS, show_default=True, help="Rounds.")
@click.option("--without", multiple=True, help="Leave out systems that have this text in their key, name or precision.")
@click.option("--only", multiple=True, help="Run only systems that have this text in their key, name or precision.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder for the result; default: benchmarks/results.")
def main(
    model: str,
    workload: Path | None,
    text_count: int | None,
    threads: int,
    rounds: int,
    without: Sequence[str],
    only: Sequence[str],
    output: Path | None,
) -> None:
    texts = (mixed_texts() if workload is None else _read_single_texts(workload))[:text_count]
    files = SystemFiles(model)
    lengths = Tokenizer((files.checkpoint / "tokenizer.json").read_bytes(), max_length=LIMIT)(texts).lengths
    # The first system is the reference of the cosines. It runs even if it is left out of the race.
    reference, limits = Participant(SYSTEMS[0]), [Participant(system) for system in LIMITS]
    participants = [
        reference if system is SYSTEMS[0] else Participant(system)
        for system in SYSTEMS
        if _is_chosen(system, only, without)
    ]
    everyone = list(dict.fromkeys([reference, *participants, *limits]))
    try:
        for participant in tqdm(everyone, desc="start"):
            participant.start(files, threads=threads)
        _measure_fidelity(reference, participants, texts, is_trained=model in TRAINED)
        _measure_speed(participants, limits, texts, rounds=rounds, work=operations(files.checkpoint, lengths))
    finally:
        for participant in everyone:
            participant.close()
    race = Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.race", *sys.argv[1:]]),
        machine=Machine.here(),
        threads=threads,
        model=model,
        workload="mixed texts of the examples" if workload is None else workload.name,
        texts=len(texts),
        tokens=int(lengths.sum()),
        outcomes=[participant.outcome for participant in participants],
        limits=[participant.outcome for participant in limits],
    )
    echo(f"written to {save(race, (output or FOLDER) / race.file_name)}", err=True)
    echo(race_table(race))


def _is_chosen(system: System, only: Sequence[str], without: Sequence[str]) -> bool:
    words = f"{system.key} {system.name} {system.precision}"
    return not any(word in words for word in without) and (not only or any(word in words for word in only))


def _read_single_texts(file: Path) -> list[str]:
    texts = [text for text in read_texts((), file, None) if isinstance(text, str)]
    if not texts:
        raise click.UsageError(f"{file} has no single texts")
    return texts


def _measure_fidelity(
    reference: Participant, participants: Sequence[Participant], texts: Sequence[str], *, is_trained: bool
) -> None:
    """Compare all embeddings with the reference's, and trained ones with human scores; this also warms up."""
    first, second, scores = scored_pairs()
    expected = reference.embed(texts)
    for participant in tqdm(participants, desc="fidelity"):
        with participant.catch_failure():
            embeddings = participant.embed(texts)
            if embeddings is not None and expected is not None:
                similarity = cosines(embeddings, expected)
                participant.outcome = replace(
                    participant.outcome, cosine_mean=float(similarity.mean()), cosine_min=float(similarity.min())
                )
            pairs = participant.embed([*first, *second]) if is_trained else None
            if pairs is not None:
                similarity = cosines(*np.split(pairs, 2))
                spearman = 100 * float(spearmanr(similarity, scores)[0])
                participant.outcome = replace(participant.outcome, spearman=spearman)


def _measure_speed(
    participants: Sequence[Participant],
    limits: Sequence[Participant],
    texts: Sequence[str],
    *,
    rounds: int,
    work: float,
) -> None:
    """Time the workload and the calls of the grid in every system, and the product of every limit.

    Args:
        participants: Systems to time.
        limits: Matrix products to time.
        texts: Workload.
        rounds: Number of rounds.
        work: Operations of all matrix products of the workload.
    """
    calls = [[_text(tokens)] * rows for rows, tokens, count in GRID.values() for _ in range(count)]
    timed = {system.outcome.key: functools.partial(system.time_calls, [texts, *calls]) for system in participants}
    timed |= {limit.outcome.key: functools.partial(limit.time_calls, [["a product"]] * 5) for limit in limits}
    seconds = measure_in_turn(timed, rounds=rounds)
    for system in participants:
        complete = [times for times in seconds[system.outcome.key] if times]
        if system.outcome.error is None:
            grid = _medians_by_shape(complete)
            system.outcome = replace(system.outcome, seconds=[times[0] for times in complete], grid=grid)
    for limit in limits:
        products = [statistics.median(times) for times in seconds[limit.outcome.key] if times]
        if limit.outcome.error is None:
            limit.outcome = replace(limit.outcome, seconds=[product * work / PRODUCT for product in products])


def _text(tokens: int) -> str:
    """Return a text with this many tokens, two special tokens included."""
    return " ".join(["card"] * (tokens - 2))


def _medians_by_shape(rounds: Sequence[Sequence[float]]) -> dict[str, list[float]]:
    """Return the median seconds of a call by its shape, one value per round.

    Args:
        rounds: Seconds of each round: first of the workload, then of the calls in the order of `GRID`.
    """
    counts = [calls for *_, calls in GRID.values()]
    ends = [1, *(1 + sum(counts[: index + 1]) for index in range(len(counts)))]
    return {
        shape: [statistics.median(times[start:stop]) for times in rounds]
        for shape, (start, stop) in zip(GRID, itertools.pairwise(ends), strict=True)
    }
