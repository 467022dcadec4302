"""Measure everything that `encort bench` reports of one bundle."""

import shlex
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from encort.benchmarks.bundle.budget import TimeBudget
from encort.benchmarks.bundle.inputs import TextCutter, serving_overflow, workload
from encort.benchmarks.bundle.measurements.calls import measure_calls
from encort.benchmarks.bundle.measurements.cold_start import measure_cold_start, measure_eager_cold_start
from encort.benchmarks.bundle.measurements.load import measure_load
from encort.benchmarks.bundle.measurements.profile import profile
from encort.benchmarks.bundle.measurements.stages import measure_stages
from encort.benchmarks.bundle.report import BundleReport, ColdStart, LoadTest, Throughput
from encort.benchmarks.bundle.systems import EAGER, Systems, open_systems
from encort.benchmarks.bundle.workload_plan import WorkloadPlan, plan_workload, probe
from encort.benchmarks.machine import Machine
from encort.benchmarks.timing import elapsed, measure_in_turn
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Device, Precision
from encort.runtime.common.errors import InputError
from encort.runtime.engine.cores import available_cores
from encort.runtime.options import DeviceName, PrecisionName
from encort.runtime.text.token_batch import Text

BUDGET_S = 120.0
"""Seconds for everything, unless the user says otherwise."""
LOAD_SHARES = (0.25, 0.5, 0.75, 0.9, 1.1)
"""Offered rates, as shares of the throughput of the whole workload."""
LOAD_SECONDS = 5.0
"""Most seconds of one rate."""
COLD_STARTS = 5
"""Most new processes of each system."""
_CONTROL = "control"
_CONTROL_SIZE = 1024
"""Rows and columns of the matrices of the control."""
_SHARE_OF_PASSES = 0.5
"""Share of the time for everything that runs the whole workload."""


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
    rounds: int | None = None,
    with_profile: bool = False,
    budget_s: float = BUDGET_S,
) -> BundleReport:
    """Measure a bundle on this machine, in a time that stderr announces.

    There are as many rounds, texts, calls and new processes as fit. The least of each may take longer than the time.

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
        rounds: Rounds of the whole workload; None takes at most seven.
        with_profile: Whether to add up the time of each operator.
        budget_s: Seconds for everything.

    Raises:
        EncortError: The bundle cannot be loaded, see `encort.load`.
        InputError: There are no texts, or operators or eager PyTorch were requested on a GPU.
    """
    if (with_profile or eager) and device.startswith(Device.CUDA):
        raise InputError("operators and eager PyTorch are measured on CPUs: leave --profile and --against out")
    bundle, threads = Bundle.open(folder), available_cores() if threads is None else threads
    all_texts = workload(bundle, texts_file, column, header)
    with ExitStack() as stack:
        budget = stack.enter_context(TimeBudget(budget_s))
        systems = open_systems(
            stack,
            bundle,
            device=device,
            precision=precision,
            threads=threads,
            eager=eager,
            checkpoint=checkpoint,
            show=partial(budget.show, "open"),
        )
        costs = probe(systems.runs, all_texts, partial(budget.show, "first texts"))
        plan = _divide(budget, systems, costs, all_texts, rounds=rounds, with_profile=with_profile)
        model, texts = systems.model, plan.texts
        tokens = int(model.tokenize(texts, overflow=serving_overflow(bundle)).tokens_per_text.sum())
        seconds = _time_workload(systems, plan, budget)
        texts_per_second = len(texts) / statistics.median(seconds[systems.main])
        latency = measure_calls(
            systems.runs,
            TextCutter(bundle, texts),
            token_seconds={name: cost * len(texts) / tokens for name, cost in costs.items()},
            seconds=budget.start("latency"),
            show=partial(budget.show, "latency"),
        )
        load = _measure_load(systems, texts, rates, texts_per_second, budget)
        cold_starts = list(_measure_cold_starts(systems, texts, budget))
        budget.start("stages")
        stages = measure_stages(folder, device, model.variant.precision, texts)
        operators = None
        if with_profile:
            budget.start("operators")
            operators = profile(bundle, model.variant, texts)
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
        tokens=tokens,
        systems=[_throughput(systems, name, seconds[name]) for name in systems.runs],
        control=seconds[_CONTROL],
        latency=latency,
        load=load,
        cold_starts=cold_starts,
        stages=stages,
        profile=operators,
    )


def _divide(
    budget: TimeBudget,
    systems: Systems,
    costs: Mapping[str, float],
    texts: Sequence[Text],
    *,
    rounds: int | None,
    with_profile: bool,
) -> WorkloadPlan:
    """Fit the workload to its share of the time, and give the rest to the other parts."""
    in_turn = sum(costs.values())
    one_core = systems.threads * costs[systems.main] / in_turn
    passes = {"rounds": 1.0, "cold starts": 1.0, "stages": one_core} | ({"operators": one_core} if with_profile else {})
    left = budget.left
    plan = plan_workload(
        texts,
        text_seconds=in_turn,
        other_passes=sum(passes.values()),
        rounds=rounds,
        seconds=_SHARE_OF_PASSES * left,
    )
    seconds = {part: plan.round_seconds * count for part, count in passes.items()}
    seconds["rounds"] += plan.round_seconds * plan.rounds
    rest = max(0.0, left - sum(seconds.values()))
    seconds = {"rounds": seconds["rounds"], "latency": rest / 2, "load": rest / 4} | seconds
    budget.divide(seconds | {"cold starts": seconds["cold starts"] + rest / 4})
    kept = "all" if len(plan.texts) == len(texts) else f"{len(plan.texts)} of"
    budget.tell(f"{kept} {len(texts)} texts in {plan.rounds} rounds: {', '.join(systems.runs)}")
    return plan


def _time_workload(systems: Systems, plan: WorkloadPlan, budget: TimeBudget) -> dict[str, list[float]]:
    """Return the seconds of all systems and of the control, one value per round, after a warm-up."""
    budget.start("rounds")
    for name, run in systems.runs.items():
        budget.show("rounds", f"{name}, warm-up")
        run(plan.texts)
    timed = {name: partial(elapsed, run, plan.texts) for name, run in systems.runs.items()}
    return measure_in_turn(
        timed | {_CONTROL: _time_control},
        rounds=plan.rounds,
        before_each=lambda name, number: budget.show("rounds", f"{name}, round {number} of {plan.rounds}"),
    )


def _time_control() -> float:
    matrix = np.ones((_CONTROL_SIZE, _CONTROL_SIZE), np.float32)
    return statistics.median(elapsed(matrix.__matmul__, matrix) for _ in range(9))


def _throughput(systems: Systems, name: str, seconds: list[float]) -> Throughput:
    """Add the cosines from the certificate of the variant."""
    fidelity = None if name == EAGER else systems.models[name].variant.fidelity
    return Throughput(
        name=name,
        seconds=seconds,
        cosine_mean=None if fidelity is None else fidelity.mean_cosine,
        cosine_min=None if fidelity is None else fidelity.min_cosine,
    )


def _measure_load(
    systems: Systems, texts: Sequence[Text], rates: Sequence[float], texts_per_second: float, budget: TimeBudget
) -> list[LoadTest]:
    """Offer texts at every rate; a rate above the throughput gets less time, since its queue is run too."""
    rates = rates or [share * texts_per_second for share in LOAD_SHARES]
    seconds, tests = budget.start("load") / len(rates), []
    for rate in rates:
        budget.show("load", f"{rate:.0f} texts/s")
        lasting = min(LOAD_SECONDS, seconds * min(1.0, texts_per_second / rate))
        tests.append(measure_load(systems.model, texts, rate=rate, seconds=lasting))
    return tests


def _measure_cold_starts(systems: Systems, texts: Sequence[Text], budget: TimeBudget) -> Iterator[ColdStart]:
    """Start each system once with all texts, for its memory; then again with one text, while there is time."""
    end = budget.left - budget.start("cold starts")
    for number in range(1, COLD_STARTS + 1):
        before = budget.left
        for name in systems.runs:
            budget.show("cold starts", f"{name}, process {number}")
            yield _measure_cold_start(systems, name, texts if number == 1 else texts[:1])
        if 2 * budget.left - before < end:  # another pass of the same time would end too late
            return


def _measure_cold_start(systems: Systems, name: str, texts: Sequence[Text]) -> ColdStart:
    if name == EAGER:
        return measure_eager_cold_start(systems.folder, systems.checkpoint, systems.threads, texts, name=EAGER)
    precision = str(systems.models[name].variant.precision)
    return measure_cold_start(systems.folder, systems.device, precision, systems.threads, texts)
