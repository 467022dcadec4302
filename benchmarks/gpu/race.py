"""The race on a GPU, meant for ten minutes: are the CUDA variants right, and how fast are they?

    python -m encort.benchmarks.gpu                     small models of every kind, MiniLM, BERT-base and BERT-large
    python -m encort.benchmarks.gpu --model bert-base
    python -m encort.benchmarks.gpu --model kinds       the small models, which are checked and not timed

Weights are drawn from a seed and the vocabulary is made of the texts, so nothing is fetched. Seconds are those from
token ids to embeddings in the caller's memory; tokenization is in the row that says so.
"""

import functools
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import transformers

import encort
from encort.benchmarks.gpu import kinds as gpu_kinds
from encort.benchmarks.gpu.kinds import kept_going
from encort.benchmarks.gpu.torch_on_gpu import Padded, Unpadded
from encort.benchmarks.machine import Machine
from encort.benchmarks.race.models import VOCABULARY, drawn, operations
from encort.benchmarks.race.tables import race_table
from encort.benchmarks.race.workload import mixed_texts
from encort.benchmarks.results import FOLDER, Check, Outcome, Race, save
from encort.benchmarks.timing import in_turn
from encort.export.exporter import export_bundle
from encort.export.variants import VariantKind
from encort.runtime.common.arrays import FloatArray
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
"""Settings of BERT that are not those of BERT-base."""
KINDS = "kinds"
"""Of the small models."""
REPEATS = 8
"""How often the texts are in the workload."""
GRID = {"1 x 16": (1, 16), "1 x 128": (1, 128), "8 x 32": (8, 32)}
"""Texts of a call, and tokens of each."""
CALLS = 30
"""Of each shape in a round."""
LEAST_COSINE = {"fp16": 0.9995, "fp32": 0.99999}
MOST_APART = {"fp16": 2e-3, "fp32": 2e-6}
"""How far an element of an embedding of length 1 may be from what the same text gets alone."""
LABELS = 10
PRODUCT = 8192
"""Rows and columns of the matrices whose product is the machine's limit."""
PRODUCTS = 10
"""Of them in a round."""

Embed = Callable[[TokenBatch], FloatArray]
Measured = tuple[float, dict[str, float]]
"""Seconds for the workload, and of a call of each shape."""


@click.command(help=__doc__)
@click.option("--model", "models", multiple=True, type=click.Choice([KINDS, *SIZES]), help="Only this one.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=FOLDER, help="Folder for the results.")
def main(models: Sequence[str], rounds: int, output: Path) -> None:
    wrong = []
    for model in models or [KINDS, *SIZES]:
        with tempfile.TemporaryDirectory() as folder:
            race = gpu_kinds.run(Path(folder)) if model == KINDS else run(model, Path(folder), rounds=rounds)
        click.echo(f"kept in {save(race, output / race.file_name)}", err=True)
        click.echo(race_table(race))
        wrong += [check for check in race.checks if not check.is_right]
    sys.exit(1 if wrong else 0)


def run(name: str, folder: Path, *, rounds: int, device: str = "cuda") -> Race:
    """Check and time one model.

    Args:
        name: Of `SIZES`.
        folder: For its checkpoint and its bundle.
        device: Of PyTorch; encort runs on `"cuda"`.
    """
    texts = mixed_texts()
    torch.manual_seed(13)
    config = transformers.BertConfig(vocab_size=VOCABULARY, num_labels=LABELS, **SIZES[name])
    checkpoint = drawn(transformers.BertForSequenceClassification(config), folder / "checkpoint", texts)
    race = Race(
        command=shlex.join(["python", "-m", "encort.benchmarks.gpu", *sys.argv[1:]]),
        machine=replace(Machine.here(), gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None),
        threads=available_cores(),
        model=f"{name} (drawn weights)",
        workload=f"mixed texts of the examples, {REPEATS} times",
        texts=REPEATS * len(texts),
        tokens=0,
        outcomes=[],
        limits=[],
    )
    with kept_going(race.checks, f"{name} is exported, loaded, checked and timed"):
        bundle = export_bundle(
            checkpoint, folder / "bundle", variants=[VariantKind.CUDA_FP16, VariantKind.CUDA_FP32]
        ).folder
        return _run(race, checkpoint, bundle, texts, rounds=rounds, device=device)
    return race  # with what was found before the error


def _run(race: Race, checkpoint: Path, bundle: Path, texts: Sequence[str], *, rounds: int, device: str) -> Race:
    eager = transformers.BertForSequenceClassification.from_pretrained(checkpoint).eval().to(device)
    half = transformers.BertModel.from_pretrained(checkpoint, dtype=torch.float16).eval().to(device)
    with (
        encort.load(bundle, device="cuda", precision="fp16") as ours,
        encort.load(bundle, device="cuda", precision="fp32") as exact,
        encort.load(bundle, device="cuda", precision="fp16", provider_options={"enable_cuda_graph": "0"}) as plain,
    ):
        ours.warm_up()
        exact.warm_up()
        batch = ours.tokenize(texts)
        ways: dict[str, Embed] = {
            "encort:fp16": ours.embed,
            "encort:fp32": exact.embed,
            "encort without captured graphs:fp16": plain.embed,
            "eager PyTorch, as texts come:fp32": Padded(eager.bert, in_order=True),
            "eager PyTorch, sorted by tokens:fp32": Padded(eager.bert),
            "eager PyTorch, sorted by tokens:fp16": Padded(half),
        }
        if device != "cpu":  # which has no attention without padding
            ways["PyTorch without padding:fp16"] = Unpadded(half)
        right, labels = Padded(eager.bert)(batch), _labels(eager, batch)
        for model in (ours, exact):
            with kept_going(race.checks, f"{model.variant.name} is checked"):
                race.checks.extend(_checks(model, batch, right, labels))
        outcomes = _timed(ways, batch, right, with_texts=lambda: ours.embed(list(texts) * REPEATS), rounds=rounds)
    work = REPEATS * operations(checkpoint, batch.lengths)
    *systems, product = outcomes
    return replace(
        race,
        tokens=REPEATS * int(batch.lengths.sum()),
        outcomes=systems,
        limits=[replace(product, seconds=[each * work / (PRODUCTS * 2 * PRODUCT**3) for each in product.seconds])],
    )


def _checks(model: encort.Model, batch: TokenBatch, right: FloatArray, labels: Sequence[str]) -> list[Check]:
    precision, name = model.variant.precision, model.variant.name
    together = model.embed(batch)
    alike = cosines(together, right)
    alone = np.concatenate([model.embed(_some(batch, index, index + 1)) for index in range(len(batch))])
    with ThreadPoolExecutor(8) as pool:
        parts = np.array_split(np.arange(len(batch)), 64)
        found = list(pool.map(lambda part: model.embed(_some(batch, part[0], part[-1] + 1)), parts))
    flips = sum(each.label != label for each, label in zip(model.classify(batch), labels, strict=True))
    return [
        Check(name=f"{name}: least cosine to eager PyTorch", found=float(alike.min()), least=LEAST_COSINE[precision]),
        Check(name=f"{name}: mean cosine to eager PyTorch", found=float(alike.mean()), least=LEAST_COSINE[precision]),
        Check(name=f"{name}: labels that differ, of {len(batch)}", found=flips, most=0.005 * len(batch)),
        Check(name=f"{name}: most apart from alone", found=_apart(together, alone), most=MOST_APART[precision]),
        Check(
            name=f"{name}: most apart from alone, 8 threads",
            found=_apart(np.concatenate(found), alone),
            most=MOST_APART[precision],
        ),
    ]


def _apart(found: FloatArray, expected: FloatArray) -> float:
    return float(np.abs(found - expected).max())


@torch.inference_mode()
def _labels(eager: transformers.BertForSequenceClassification, batch: TokenBatch) -> list[str]:
    found = []
    for index in range(len(batch)):
        rows = batch.rows(np.array([index]))
        logits = eager(**{name: torch.from_numpy(array).to(eager.device) for name, array in rows.items()}).logits
        found.append(eager.config.id2label[int(logits.argmax())])
    return found


def _timed(
    ways: dict[str, Embed], batch: TokenBatch, right: FloatArray, *, with_texts: Callable[[], object], rounds: int
) -> list[Outcome]:
    """All ways in turn, with encort from texts and a large product, which comes last; a way that cannot is told."""
    workload = _repeated(batch)
    calls = {shape: _shaped(batch, *sizes) for shape, sizes in GRID.items()}

    def measured(embed: Embed) -> Measured:
        grid = {shape: statistics.median(_seconds(embed, call) for _ in range(CALLS)) for shape, call in calls.items()}
        return _seconds(embed, workload), grid

    found: dict[str, FloatArray] = {}
    errors: dict[str, str] = {}
    for key, embed in ways.items():
        try:
            found[key] = embed(batch)  # a warm-up as well
        except Exception as error:
            errors[key] = f"{type(error).__name__}: {error}"
    turns: dict[str, Callable[[], Measured]] = {key: functools.partial(measured, ways[key]) for key in found}
    turns["encort, tokenization included:fp16"] = lambda: (_seconds(with_texts), {})
    turns["matrix product of PyTorch:fp16"] = lambda: (_seconds(_products), {})
    _products()
    timed = in_turn(turns, rounds=rounds)
    failed = [_outcome(key, error=error) for key, error in errors.items()]
    return failed + [
        _outcome(
            key,
            seconds=[seconds for seconds, _ in timed[key]],
            grid={shape: [grid[shape] for _, grid in timed[key]] for shape in GRID} if key in found else {},
            cosine_mean=float(cosines(found[key], right).mean()) if key in found else None,
            cosine_min=float(cosines(found[key], right).min()) if key in found else None,
        )
        for key in turns
    ]


def _outcome(key: str, **measured: Any) -> Outcome:
    name, _, precision = key.rpartition(":")
    return Outcome(name=name, key=key, precision=precision, **measured)


def _products() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    matrix = torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.float16)
    for _ in range(PRODUCTS):
        matrix @ matrix
    if device == "cuda":
        torch.cuda.synchronize()


def _seconds(call: Callable[..., object], *arguments: object) -> float:
    begin = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - begin


def _shaped(batch: TokenBatch, texts: int, tokens: int) -> TokenBatch:
    ids = np.resize(batch.ids, texts * tokens)
    return TokenBatch(
        ids=ids,
        type_ids=0 * ids,
        cu_seqlens=np.arange(0, texts * tokens + 1, tokens),
        truncated=np.zeros(texts, np.bool_),
    )


def _repeated(batch: TokenBatch) -> TokenBatch:
    lengths = np.tile(batch.lengths, REPEATS)
    return TokenBatch(
        ids=np.tile(batch.ids, REPEATS),
        type_ids=np.tile(batch.type_ids, REPEATS),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=np.tile(batch.truncated, REPEATS),
    )


def _some(batch: TokenBatch, start: int, stop: int) -> TokenBatch:
    """Texts from `start` to before `stop`."""
    begin, end = batch.cu_seqlens[start], batch.cu_seqlens[stop]
    return TokenBatch(
        ids=batch.ids[begin:end],
        type_ids=batch.type_ids[begin:end],
        cu_seqlens=batch.cu_seqlens[start : stop + 1] - begin,
        truncated=batch.truncated[start:stop],
    )


if __name__ == "__main__":
    main()
