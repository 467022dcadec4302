"""`encort bench`: everything that is measured of one bundle, in one call."""

import shlex
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from encort.benchmarks.fresh import fresh_process
from encort.benchmarks.inputs import Shaper, workload
from encort.benchmarks.load import measure_load
from encort.benchmarks.machine import Machine
from encort.benchmarks.profile import profile
from encort.benchmarks.results import BundleReport, Fresh, Latency, Stages, Way
from encort.benchmarks.timing import in_turn
from encort.runtime.bundle import Bundle
from encort.runtime.cores import available_cores
from encort.runtime.manifest import PORTABLE, Device
from encort.runtime.model import Model, load
from encort.runtime.tokens import Text

EAGER = "eager PyTorch"
LENGTHS = (8, 32, 128)
"""Tokens of a text, beside the bundle's limit."""
CALL_TEXTS = (1, 8, 32)
CALLS = 30
LOAD_SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
"""Rates that are offered, as parts of what the bundle does of the workload at once."""
LOAD_SECONDS = 5.0
FRESH = 5
_CONTROL = 1024

Run = Callable[[Sequence[Text]], object]


def measure_bundle(
    folder: Path,
    *,
    precision: str = "auto",
    threads: int | None = None,
    texts_file: Path | None = None,
    column: str | None = None,
    eager: bool = False,
    checkpoint: str | None = None,
    rates: Sequence[float] = (),
    rounds: int = 5,
    with_profile: bool = False,
) -> BundleReport:
    """Measure a bundle on this machine.

    Args:
        folder: The bundle.
        precision: Of latency, load, stages and fresh processes; throughput is measured of all.
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
    """
    bundle, threads = Bundle.open(folder), threads or available_cores()
    texts = workload(bundle, texts_file, column)
    with load(folder, precision=precision, threads=threads) as model:
        ways: dict[str, Run] = {f"encort {model.variant.precision}": model.predict}
        others = [load(folder, precision=name, threads=threads) for name in _other_precisions(bundle, model)]
        ways |= {f"encort {other.variant.precision}": other.predict for other in others}
        if eager:
            from encort.benchmarks.eager import Eager

            ways[EAGER] = Eager(bundle, checkpoint, threads=threads)
        for run in ways.values():
            run(texts)
        seconds = in_turn(
            {name: partial(_seconds, run, texts) for name, run in ways.items()} | {"": _control}, rounds=rounds
        )
        latency = list(_latency(ways, Shaper(bundle, texts)))
        stages = _stages(model, texts, threads)
        best = statistics.median(seconds[f"encort {model.variant.precision}"])
        rates = rates or [share * len(texts) / best for share in LOAD_SHARES]
        loads = [measure_load(model, texts, rate=rate, seconds=LOAD_SECONDS) for rate in rates]
        for other in others:
            other.close()
        return BundleReport(
            command=shlex.join(["encort", *sys.argv[1:]]),
            machine=Machine.here(),
            threads=threads,
            bundle=str(folder),
            task=str(bundle.manifest.task),
            precision=str(model.variant.precision),
            workload="the bundle's sample texts" if texts_file is None else texts_file.name,
            texts=len(texts),
            tokens=int(model.tokenize(texts).tokens_of_texts.sum()),
            ways=[_way(bundle, name, seconds[name]) for name in ways],
            control=seconds[""],
            latency=latency,
            load=loads,
            fresh=_fresh(folder, str(model.variant.precision), threads, texts),
            stages=stages,
            profile=profile(bundle, model.variant, texts) if with_profile else None,
        )


def _other_precisions(bundle: Bundle, model: Model) -> list[str]:
    fast = [each for each in bundle.manifest.variants if each.device is Device.CPU and each.name != PORTABLE]
    return list(dict.fromkeys(str(each.precision) for each in fast if each.precision != model.variant.precision))


def _seconds(run: Run, texts: Sequence[Text]) -> float:
    begin = time.perf_counter()
    run(texts)
    return time.perf_counter() - begin


def _control() -> float:
    matrix = np.ones((_CONTROL, _CONTROL), np.float32)
    return _seconds(lambda _: matrix @ matrix, [])


def _way(bundle: Bundle, name: str, seconds: list[float]) -> Way:
    """With what the certificate of the variant says."""
    precision = name.removeprefix("encort ")
    variant = next((each for each in bundle.manifest.variants if each.precision == precision), None)
    fidelity = None if variant is None else variant.fidelity
    return Way(
        name=name,
        seconds=seconds,
        cosine_mean=None if fidelity is None else fidelity.mean_cosine,
        cosine_min=None if fidelity is None else fidelity.min_cosine,
    )


def _latency(ways: dict[str, Run], shaper: Shaper) -> list[Latency]:
    found = []
    for texts in CALL_TEXTS:
        for length in sorted({min(length, shaper.limit) for length in (*LENGTHS, shaper.limit)}):
            text = shaper(length)
            calls = {name: partial(_seconds, run, [text] * texts) for name, run in ways.items()}
            seconds = in_turn(calls, rounds=max(3, CALLS // texts), quiet=True)
            found += [_of_calls(name, texts, shaper.tokens(text), each) for name, each in seconds.items()]
    return found


def _of_calls(way: str, texts: int, tokens: int, seconds: Sequence[float]) -> Latency:
    p50, p90, p99 = (1e3 * np.percentile(seconds, [50, 90, 99])).tolist()
    return Latency(way=way, texts=texts, tokens=tokens, p50_ms=p50, p90_ms=p90, p99_ms=p99, max_ms=1e3 * max(seconds))


def _stages(model: Model, texts: Sequence[Text], threads: int) -> Stages:
    before = model.stats()
    took = threads * _seconds(model.predict, texts)
    after = model.stats()
    run = after.run_seconds.sum - before.run_seconds.sum
    tokenize = after.tokenize_seconds.sum - before.tokenize_seconds.sum
    tokens, padding = after.tokens - before.tokens, after.padding - before.padding
    wasted = run * padding / max(1, tokens + padding)
    return Stages(tokenize=tokenize, run=run - wasted, padding=wasted, rest=max(0.0, took - run - tokenize))


def _fresh(folder: Path, precision: str, threads: int, texts: list[Text]) -> list[Fresh]:
    return [fresh_process(folder, precision, threads, texts, more=number == FRESH - 1) for number in range(FRESH)]
