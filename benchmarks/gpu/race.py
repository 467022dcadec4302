"""Check the CUDA variants on a GPU, and time them beside PyTorch, in about ten minutes.

    python -m encort.benchmarks.gpu                     small models of every kind, MiniLM, BERT-base and BERT-large
    python -m encort.benchmarks.gpu --model bert-base
    python -m encort.benchmarks.gpu --model kinds       the small models, which are checked and not timed

Weights are random and the vocabulary is trained on the texts, so nothing is downloaded. Times are from token ids to
embeddings in the caller's memory, except in the row that includes tokenization.
"""

import functools
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
import transformers

import encort
from encort.benchmarks.command_help import command_help
from encort.benchmarks.gpu import kinds as gpu_kinds
from encort.benchmarks.gpu import token_batches
from encort.benchmarks.gpu.checks import check_model, eager_labels, record_failure
from encort.benchmarks.gpu.torch_on_gpu import Padded, Unpadded
from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import VOCABULARY, operations, save_with_tokenizer
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.race.workload import mixed_texts
from encort.benchmarks.results import FOLDER, Outcome, Race, save
from encort.benchmarks.timing import measure_in_turn
from encort.export.exporter import export_bundle
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.output.terminal import echo
from encort.runtime.engine.cores import available_cores
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.verification.tolerance import cosines

SIZES = {
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536},
    "bert-base": {},
    "bert-large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
"""Settings of BERT that differ from BERT-base."""
KINDS = "kinds"
"""Name of the small models on the command line."""
REPEATS = 8
"""Copies of each text in the workload."""
GRID = {"1 x 16": (1, 16), "1 x 128": (1, 128), "8 x 32": (8, 32)}
"""Texts per call, and tokens per text."""
CALLS = 30
"""Calls of each shape per round."""
LABELS = 10
PRODUCT = 8192
"""Rows and columns of the matrices whose product shows the limit of the machine."""
PRODUCTS = 10
"""Matrix products per round."""

Embed = Callable[[TokenBatch], FloatArray]
Times = tuple[float, dict[str, float]]
"""Seconds for the workload, and for a call of each shape."""


@click.command(help=command_help(__doc__))
@click.option(
    "--model", "models", multiple=True, type=click.Choice([KINDS, *SIZES]), help="Only this model; can be repeated."
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds.")
@click.option("--output", type=click.Path(path_type=Path), default=FOLDER, help="Folder for the results.")
def main(models: Sequence[str], rounds: int, output: Path) -> None:
    failed = []
    for model in models or [KINDS, *SIZES]:
        with tempfile.TemporaryDirectory() as folder:
            race = gpu_kinds.run(Path(folder)) if model == KINDS else run(model, Path(folder), rounds=rounds)
        echo(f"written to {save(race, output / race.file_name)}", err=True)
        echo(race_table(race))
        failed += [check for check in race.checks if not check.passed]
    sys.exit(1 if failed else 0)


def run(name: str, folder: Path, *, rounds: int, device: str = "cuda") -> Race:
    """Check and time one model; an error becomes a check that failed.

    Args:
        name: A key of `SIZES`.
        folder: Folder for its checkpoint and its bundle.
        rounds: Number of rounds.
        device: Device of PyTorch; encort runs on `"cuda"`.
    """
    texts = mixed_texts()
    torch.manual_seed(13)
    config = transformers.BertConfig(vocab_size=VOCABULARY, num_labels=LABELS, **SIZES[name])
    model = transformers.BertForSequenceClassification(config)
    checkpoint = save_with_tokenizer(model, folder / "checkpoint", texts)
    race = Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.gpu", *sys.argv[1:]]),
        machine=replace(Machine.here(), gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        threads=available_cores(),
        model=f"{name} (random weights)",
        workload=f"mixed texts of the examples, {REPEATS} times",
        texts=REPEATS * len(texts),
        tokens=0,
        outcomes=[],
        limits=[],
    )
    with record_failure(race.checks, f"{name} is exported, loaded, checked and timed"):
        bundle = export_bundle(checkpoint, folder / "bundle", variants=["cuda-fp16", "cuda-fp32"]).folder
        return _check_and_time(race, checkpoint, bundle, texts, rounds=rounds, device=device)
    return race  # with the checks that were made before the error


def _check_and_time(
    race: Race, checkpoint: Path, bundle: Path, texts: Sequence[str], *, rounds: int, device: str
) -> Race:
    eager = transformers.BertForSequenceClassification.from_pretrained(checkpoint).eval().to(device)
    half = transformers.BertModel.from_pretrained(checkpoint, dtype=torch.float16).eval().to(device)
    without_graphs = {"enable_cuda_graph": "0"}
    with (
        encort.load(bundle, device="cuda", precision="fp16") as fp16,
        encort.load(bundle, device="cuda", precision="fp32") as fp32,
        encort.load(bundle, device="cuda", precision="fp16", provider_options=without_graphs) as uncaptured,
    ):
        fp16.warm_up()
        fp32.warm_up()
        batch = fp16.tokenize(texts)
        systems: dict[str, Embed] = {
            "encort:fp16": fp16.embed,
            "encort:fp32": fp32.embed,
            "encort without captured graphs:fp16": uncaptured.embed,
            "eager PyTorch, as texts come:fp32": Padded(eager.bert, keep_order=True),
            "eager PyTorch, sorted by tokens:fp32": Padded(eager.bert),
            "eager PyTorch, sorted by tokens:fp16": Padded(half),
        }
        if device != "cpu":  # PyTorch has attention without padding on GPUs only
            systems["PyTorch without padding:fp16"] = Unpadded(half)
        expected, labels = Padded(eager.bert)(batch), eager_labels(eager, batch)
        for model in (fp16, fp32):
            with record_failure(race.checks, f"{model.variant.name} is checked"):
                race.checks.extend(check_model(model, batch, expected, labels))
        with_tokenization = functools.partial(fp16.embed, list(texts) * REPEATS)
        *outcomes, product = _time(systems, batch, expected, with_tokenization, rounds=rounds)
    work = REPEATS * operations(checkpoint, batch.lengths)
    seconds = [seconds * work / (PRODUCTS * 2 * PRODUCT**3) for seconds in product.seconds]
    tokens = REPEATS * int(batch.lengths.sum())
    return replace(race, tokens=tokens, outcomes=outcomes, limits=[replace(product, seconds=seconds)])


def _time(
    systems: Mapping[str, Embed],
    batch: TokenBatch,
    expected: FloatArray,
    with_tokenization: Callable[[], object],
    *,
    rounds: int,
) -> list[Outcome]:
    """Time all systems in turn with encort from texts and a matrix product.

    Returns:
        Systems that failed, then the others, then encort from texts; the matrix product is last.
    """
    embeddings, errors = _embed_with_all(systems, batch)
    workload = token_batches.repeated(batch, REPEATS)
    calls = {shape: token_batches.of_shape(batch, *sizes) for shape, sizes in GRID.items()}
    timed: dict[str, Callable[[], Times]] = {
        key: functools.partial(_time_embed, systems[key], workload, calls) for key in embeddings
    }
    timed["encort, tokenization included:fp16"] = lambda: (_seconds(with_tokenization), {})
    timed["matrix product of PyTorch:fp16"] = lambda: (_seconds(_multiply), {})
    _multiply()  # a warm-up
    times = measure_in_turn(timed, rounds=rounds)
    outcomes = [_outcome(key, error=error) for key, error in errors.items()]
    for key in timed:
        outcome = _outcome(key, seconds=[seconds for seconds, _ in times[key]])
        if key in embeddings:
            similarity = cosines(embeddings[key], expected)
            outcome = replace(
                outcome,
                grid={shape: [by_shape[shape] for _, by_shape in times[key]] for shape in GRID},
                cosine_mean=float(similarity.mean()),
                cosine_min=float(similarity.min()),
            )
        outcomes.append(outcome)
    return outcomes


def _embed_with_all(systems: Mapping[str, Embed], batch: TokenBatch) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Return the embeddings of each system, and the errors of those that fail; this also warms up."""
    embeddings: dict[str, FloatArray] = {}
    errors: dict[str, str] = {}
    for key, embed in systems.items():
        try:
            embeddings[key] = embed(batch)
        except Exception as error:
            errors[key] = f"{type(error).__name__}: {error}"
    return embeddings, errors


def _time_embed(embed: Embed, workload: TokenBatch, calls: Mapping[str, TokenBatch]) -> Times:
    by_shape = {shape: statistics.median(_seconds(embed, call) for _ in range(CALLS)) for shape, call in calls.items()}
    return _seconds(embed, workload), by_shape


def _outcome(key: str, **measured: Any) -> Outcome:
    name, _, precision = key.rpartition(":")
    return Outcome(name=name, key=key, precision=precision, **measured)


def _multiply() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.float16)
    for _ in range(PRODUCTS):
        matrix @ matrix
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - start
