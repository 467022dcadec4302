"""`encort bench`: everything that is measured of one bundle, in one call."""

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from encort.benchmarks.bundle.cold_start import fresh_eager, fresh_process
from encort.benchmarks.bundle.inputs import Shaper, overflow_of, workload
from encort.benchmarks.bundle.load import measure_load
from encort.benchmarks.bundle.profile import profile
from encort.benchmarks.machine import Machine
from encort.benchmarks.results import BundleReport, Fresh, Latency, Stages, Way
from encort.benchmarks.timing import ROUNDS, in_turn
from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import PORTABLE, Device, Precision
from encort.runtime.common.errors import InputError
from encort.runtime.engine.cores import available_cores
from encort.runtime.model import Model, load
from encort.runtime.options import DeviceName, PrecisionName
from encort.runtime.text.token_batch import Text

EAGER = "eager PyTorch"
LENGTHS = (8, 32, 128)
"""Tokens of a text, beside the bundle's limit."""
CALL_TEXTS = (1, 8, 32)
CALLS = (5, 200)
"""Least and most calls of a shape; as many as there is time for."""
CALLS_SECONDS = 2.0
LOAD_SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
"""Rates that are offered, as parts of what the bundle does of the workload at once."""
LOAD_SECONDS = 5.0
FRESH = 5
_CONTROL = 1024

Run = Callable[[Sequence[Text]], object]


def measure_bundle(
    folder: Path,
    *,
    device: DeviceName = "auto",
    precision: PrecisionName | Precision = "auto",
    threads: int | None = None,
    texts_file: Path | None = None,
    column: str | None = None,
    eager: bool = False,
    checkpoint: str | None = None,
    rates: Sequence[float] = (),
    rounds: int = ROUNDS,
    with_profile: bool = False,
) -> BundleReport:
    """Measure a bundle on this machine.

    Args:
        folder: The bundle.
        device: See `encort.load`.
        precision: Of load, stages and operators; the others are measured of every precision that runs here.
        threads: Cores to use; None takes all that the process may use.
        texts_file: Texts to measure with; None puts the bundle's sample texts together.
        column: Of a table of texts.
        eager: Measure eager PyTorch as well.
        checkpoint: For it; None takes what the bundle was made of.
        rates: Texts a second to offer; none takes some up to saturation.
        rounds: Of the workload.
        with_profile: Also find where the runs' time goes.

    Raises:
        EncortError: See `encort.load`; or there are no texts.
        InputError: Operators, or eager PyTorch, beside a GPU.
    """
    if (with_profile or eager) and device.startswith(Device.CUDA):
        raise InputError("operators and eager PyTorch are measured on CPUs: leave --profile and --against out")
    bundle, threads = Bundle.open(folder), available_cores() if threads is None else threads
    texts = workload(bundle, texts_file, column)
    with ExitStack() as opened:
        model, models = _load_all(opened, bundle, device, precision, threads)
        ways: dict[str, Run] = {name: each.predict for name, each in models.items()}
        if eager:
            from encort.benchmarks.bundle.torch_baseline import Eager

            ways[EAGER] = Eager(bundle, checkpoint, threads=threads)
        for run in ways.values():
            run(texts)
        seconds = in_turn(
            {name: partial(_seconds, run, texts) for name, run in ways.items()} | {"": _control}, rounds=rounds
        )
        best = statistics.median(seconds[_name(model)])
        rates = rates or [share * len(texts) / best for share in LOAD_SHARES]
        return BundleReport(
            command=shlex.join(["encort", *sys.argv[1:]]),
            machine=Machine.here(),
            threads=threads,
            device=device if model.variant.device is Device.CUDA else str(Device.CPU),
            bundle=str(folder),
            task=str(bundle.manifest.task),
            precision=str(model.variant.precision),
            workload="the bundle's sample texts" if texts_file is None else texts_file.name,
            texts=len(texts),
            tokens=int(model.tokenize(texts, overflow=overflow_of(bundle)).tokens_of_texts.sum()),
            ways=[_way(models, name, seconds[name]) for name in ways],
            control=seconds[""],
            latency=list(_latency(ways, Shaper(bundle, texts))),
            load=[measure_load(model, texts, rate=rate, seconds=LOAD_SECONDS) for rate in rates],
            fresh=list(_fresh(folder, device, models, threads, texts, eager=eager, checkpoint=checkpoint)),
            stages=_stages(folder, device, model.variant.precision, texts),
            profile=profile(bundle, model.variant, texts) if with_profile else None,
        )


def _load_all(
    opened: ExitStack, bundle: Bundle, device: DeviceName, precision: PrecisionName | Precision, threads: int
) -> tuple[Model, dict[str, Model]]:
    """The model that was asked for, and all precisions that its device runs, by their names; it comes first."""
    model = opened.enter_context(load(bundle.folder, device=device, precision=precision, threads=threads))
    others = dict.fromkeys(
        variant.precision
        for variant in bundle.manifest.variants
        if variant.device is model.variant.device and variant.name != PORTABLE and runs_here(variant)
    )
    models = [model]
    models += [
        opened.enter_context(load(bundle.folder, device=device, precision=each, threads=threads))
        for each in others
        if each != model.variant.precision
    ]
    for each in models:
        each.warm_up()
    return model, {_name(each): each for each in models}


def _name(model: Model) -> str:
    return f"encort {model.variant.precision}"


def _seconds(run: Run, texts: Sequence[Text]) -> float:
    begin = time.perf_counter()
    run(texts)
    return time.perf_counter() - begin


def _control() -> float:
    matrix = np.ones((_CONTROL, _CONTROL), np.float32)
    return statistics.median(_seconds(lambda _: matrix @ matrix, []) for _ in range(9))


def _way(models: Mapping[str, Model], name: str, seconds: list[float]) -> Way:
    """With what the certificate of the variant says."""
    fidelity = models[name].variant.fidelity if name in models else None
    return Way(
        name=name,
        seconds=seconds,
        cosine_mean=None if fidelity is None else fidelity.mean_cosine,
        cosine_min=None if fidelity is None else fidelity.min_cosine,
    )


def _latency(ways: Mapping[str, Run], shaper: Shaper) -> Iterator[Latency]:
    for texts in CALL_TEXTS:
        for length in sorted({min(length, shaper.limit) for length in (*LENGTHS, shaper.limit)}):
            call = [shaper(length)] * texts
            for name, run in ways.items():
                yield _of_calls(name, texts, shaper.tokens(call[0]), _calls(run, call))


def _calls(run: Run, call: Sequence[Text]) -> list[float]:
    """Seconds of calls one after the other, when a first one has been made."""
    once = _seconds(run, call)
    least, most = CALLS
    return [_seconds(run, call) for _ in range(min(most, max(least, int(CALLS_SECONDS / once))))]


def _of_calls(way: str, texts: int, tokens: int, seconds: Sequence[float]) -> Latency:
    p50, p90, p99, most = (1e3 * np.percentile(seconds, [50, 90, 99, 100])).tolist()
    return Latency(
        way=way, calls=len(seconds), texts=texts, tokens=tokens, p50_ms=p50, p90_ms=p90, p99_ms=p99, max_ms=most
    )


def _stages(folder: Path, device: DeviceName, precision: PrecisionName | Precision, texts: Sequence[Text]) -> Stages:
    """On one core, where nothing happens beside anything else."""
    with load(folder, device=device, precision=precision, threads=1) as model:
        model.warm_up()
        before = model.stats()
        took = _seconds(model.predict, texts)
        after = model.stats()
    run = after.run_seconds.sum - before.run_seconds.sum
    tokenize = after.tokenize_seconds.sum - before.tokenize_seconds.sum
    tokens, padding = after.tokens - before.tokens, after.padding - before.padding
    wasted = run * padding / max(1, tokens + padding)
    return Stages(tokenize=tokenize, run=run - wasted, padding=wasted, rest=max(0.0, took - run - tokenize))


def _fresh(
    folder: Path,
    device: DeviceName,
    models: Mapping[str, Model],
    threads: int,
    texts: Sequence[Text],
    *,
    eager: bool,
    checkpoint: str | None,
) -> Iterator[Fresh]:
    for _ in range(FRESH):
        for model in models.values():
            yield fresh_process(folder, device, str(model.variant.precision), threads, texts)
        if eager:
            yield fresh_eager(folder, checkpoint, threads, texts, name=EAGER)
