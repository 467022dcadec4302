"""Measure everything that `encort bench` reports of one bundle."""

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from encort.benchmarks.bundle.cold_start import measure_cold_start, measure_eager_cold_start
from encort.benchmarks.bundle.inputs import TextCutter, serving_overflow, workload
from encort.benchmarks.bundle.load import measure_load
from encort.benchmarks.bundle.profile import profile
from encort.benchmarks.bundle.report import BundleReport, ColdStart, Latency, Stages, Throughput
from encort.benchmarks.machine import Machine
from encort.benchmarks.timing import ROUNDS, measure_in_turn
from encort.runtime.bundle.bundle import Bundle, runs_here
from encort.runtime.bundle.manifest import PORTABLE, Device, Precision
from encort.runtime.common.errors import InputError
from encort.runtime.engine.cores import available_cores
from encort.runtime.model import Model, load
from encort.runtime.options import DeviceName, PrecisionName
from encort.runtime.text.token_batch import Text

EAGER = "eager PyTorch"
TEXT_TOKENS = (8, 32, 128)
"""Tokens per text in timed calls; the bundle's limit is added."""
TEXTS_PER_CALL = (1, 8, 32)
CALLS = (5, 200)
"""Least and most calls of one shape; within these, as many as `CALLS_SECONDS` allows."""
CALLS_SECONDS = 2.0
LOAD_SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
"""Offered rates, as shares of the throughput of the whole workload."""
LOAD_SECONDS = 5.0
COLD_STARTS = 5
_CONTROL = "control"
_CONTROL_SIZE = 1024
"""Rows and columns of the matrices of the control."""

Run = Callable[[Sequence[Text]], object]


def measure_bundle(
    folder: Path,
    *,
    device: DeviceName = "auto",
    precision: PrecisionName | Precision = "auto",
    threads: int | None = None,
    texts_file: Path | None = None,
    column: str | None = None,
    header: str | None = None,
    eager: bool = False,
    checkpoint: str | None = None,
    rates: Sequence[float] = (),
    rounds: int = ROUNDS,
    with_profile: bool = False,
) -> BundleReport:
    """Measure a bundle on this machine.

    Args:
        folder: Folder of the bundle.
        device: See `encort.load`.
        precision: Precision for load, stages and operators; the rest is measured with every precision that runs here.
        threads: Cores to use; None takes all that the process may use.
        texts_file: Texts to measure with; None takes the bundle's sample texts.
        column: Column of a table of texts.
        header: Names of the columns of a table without them, separated by commas.
        eager: Whether to measure eager PyTorch too.
        checkpoint: Checkpoint for eager PyTorch; None takes the one that was exported.
        rates: Texts per second to offer; none takes some up to saturation.
        rounds: Rounds of the whole workload.
        with_profile: Whether to add up the time of each operator.

    Raises:
        EncortError: The bundle cannot be loaded, see `encort.load`.
        InputError: There are no texts, or operators or eager PyTorch were requested on a GPU.
    """
    if (with_profile or eager) and device.startswith(Device.CUDA):
        raise InputError("operators and eager PyTorch are measured on CPUs: leave --profile and --against out")
    bundle, threads = Bundle.open(folder), available_cores() if threads is None else threads
    texts = workload(bundle, texts_file, column, header)
    with ExitStack() as stack:
        model, models = _load_all(stack, bundle, device, precision, threads)
        systems: dict[str, Run] = {name: loaded.predict for name, loaded in models.items()}
        if eager:
            from encort.benchmarks.bundle.torch_baseline import Eager

            systems[EAGER] = Eager(bundle, checkpoint, threads=threads)
        seconds = _time_workload(systems, texts, rounds=rounds)
        texts_per_second = len(texts) / statistics.median(seconds[_name(model)])
        cold_starts = _measure_cold_starts(folder, device, models, threads, texts, eager=eager, checkpoint=checkpoint)
        rates = rates or [share * texts_per_second for share in LOAD_SHARES]
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
            tokens=int(model.tokenize(texts, overflow=serving_overflow(bundle)).tokens_per_text.sum()),
            systems=[_throughput(models, name, seconds[name]) for name in systems],
            control=seconds[_CONTROL],
            latency=list(_measure_latency(systems, TextCutter(bundle, texts))),
            load=[measure_load(model, texts, rate=rate, seconds=LOAD_SECONDS) for rate in rates],
            cold_starts=list(cold_starts),
            stages=_measure_stages(folder, device, model.variant.precision, texts),
            profile=profile(bundle, model.variant, texts) if with_profile else None,
        )


def _load_all(
    stack: ExitStack, bundle: Bundle, device: DeviceName, precision: PrecisionName | Precision, threads: int
) -> tuple[Model, dict[str, Model]]:
    """Load the requested model and one for each other precision of its device; return it, and all of them by name."""
    model = stack.enter_context(load(bundle.folder, device=device, precision=precision, threads=threads))
    precisions = dict.fromkeys(
        variant.precision
        for variant in bundle.manifest.variants
        if variant.device is model.variant.device and variant.name != PORTABLE and runs_here(variant)
    )
    models = [model]
    models += [
        stack.enter_context(load(bundle.folder, device=device, precision=other, threads=threads))
        for other in precisions
        if other != model.variant.precision
    ]
    for loaded in models:
        loaded.warm_up()
    return model, {_name(loaded): loaded for loaded in models}


def _name(model: Model) -> str:
    return f"encort {model.variant.precision}"


def _time_workload(systems: Mapping[str, Run], texts: Sequence[Text], *, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of all systems and of the control, one value per round, after a warm-up."""
    for run in systems.values():
        run(texts)
    timed = {name: partial(_seconds, run, texts) for name, run in systems.items()}
    return measure_in_turn(timed | {_CONTROL: _time_control}, rounds=rounds)


def _seconds(run: Run, texts: Sequence[Text]) -> float:
    start = time.perf_counter()
    run(texts)
    return time.perf_counter() - start


def _time_control() -> float:
    matrix = np.ones((_CONTROL_SIZE, _CONTROL_SIZE), np.float32)
    return statistics.median(_seconds(lambda _: matrix @ matrix, []) for _ in range(9))


def _throughput(models: Mapping[str, Model], name: str, seconds: list[float]) -> Throughput:
    """Add the cosines from the certificate of the variant."""
    fidelity = models[name].variant.fidelity if name in models else None
    return Throughput(
        name=name,
        seconds=seconds,
        cosine_mean=None if fidelity is None else fidelity.mean_cosine,
        cosine_min=None if fidelity is None else fidelity.min_cosine,
    )


def _measure_latency(systems: Mapping[str, Run], cutter: TextCutter) -> Iterator[Latency]:
    for texts in TEXTS_PER_CALL:
        for tokens in sorted({min(tokens, cutter.limit) for tokens in (*TEXT_TOKENS, cutter.limit)}):
            call = [cutter.cut(tokens)] * texts
            for name, run in systems.items():
                yield _latency(name, texts, cutter.count_tokens(call[0]), _time_calls(run, call))


def _time_calls(run: Run, call: Sequence[Text]) -> list[float]:
    """Return the seconds of calls that were made one after the other, after a first one that is not counted."""
    first = _seconds(run, call)
    least, most = CALLS
    return [_seconds(run, call) for _ in range(min(most, max(least, int(CALLS_SECONDS / first))))]


def _latency(system: str, texts: int, tokens: int, seconds: Sequence[float]) -> Latency:
    p50, p90, p99, slowest = (1e3 * np.percentile(seconds, [50, 90, 99, 100])).tolist()
    return Latency(
        system=system,
        calls=len(seconds),
        texts=texts,
        tokens=tokens,
        p50_ms=p50,
        p90_ms=p90,
        p99_ms=p99,
        max_ms=slowest,
    )


def _measure_stages(
    folder: Path, device: DeviceName, precision: PrecisionName | Precision, texts: Sequence[Text]
) -> Stages:
    """Measure on one core, where the stages do not overlap."""
    with load(folder, device=device, precision=precision, threads=1) as model:
        model.warm_up()
        before = model.stats()
        total = _seconds(model.predict, texts)
        after = model.stats()
    run = after.run_seconds.sum - before.run_seconds.sum
    tokenize = after.tokenize_seconds.sum - before.tokenize_seconds.sum
    tokens, padding = after.tokens - before.tokens, after.padding - before.padding
    padding_seconds = run * padding / max(1, tokens + padding)
    rest = max(0.0, total - run - tokenize)
    return Stages(tokenize=tokenize, run=run - padding_seconds, padding=padding_seconds, rest=rest)


def _measure_cold_starts(
    folder: Path,
    device: DeviceName,
    models: Mapping[str, Model],
    threads: int,
    texts: Sequence[Text],
    *,
    eager: bool,
    checkpoint: str | None,
) -> Iterator[ColdStart]:
    for _ in range(COLD_STARTS):
        for model in models.values():
            yield measure_cold_start(folder, device, str(model.variant.precision), threads, texts)
        if eager:
            yield measure_eager_cold_start(folder, checkpoint, threads, texts, name=EAGER)
