"""Add up ONNX Runtime's own times of every node, by operator, and the times of native layers, by phase."""

import json
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from encort.benchmarks.bundle.report import Operator
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.kernels import kernels_phase_seconds
from encort.runtime.bundle.manifest import TOKENIZER_FILE, Layout, Variant
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import ExecutionSlots, plan
from encort.runtime.engine.session import CPU_PROVIDER, session_options
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer

_LAYER = "EncoderLayer"
"""Operator of native variants."""


def profile(bundle: Bundle, variant: Variant, texts: Sequence[Text]) -> list[Operator]:
    """Return the time of every operator on one core, the most expensive first.

    Args:
        bundle: Bundle to measure.
        variant: Graph to run; it must be one for CPUs.
        texts: Texts to run, in the micro-batches that one core is given.
    """
    tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
    batch = tokenizer(texts, reverse=variant.reads_reversed, return_prompt_length=variant.reads_prompt_length)
    micro_batches = plan(
        batch.lengths, ExecutionSlots.of_cores(1), costs=Costs(), mixed=variant.layout is Layout.RAGGED
    )
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(variant, 1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "run")
        before = kernels_phase_seconds() if variant.is_native else {}
        session = onnxruntime.InferenceSession(bundle.graph(variant).path, options, providers=[CPU_PROVIDER])
        for indices in micro_batches:
            rows = batch.rows(indices)
            session.run(None, {name: rows[name] for name in variant.inputs})
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    after = kernels_phase_seconds() if variant.is_native else {}
    return _sum_by_operator(events, {phase: after[phase] - before[phase] for phase in after})


def _sum_by_operator(events: Sequence[dict[str, object]], phases: Mapping[str, float]) -> list[Operator]:
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith("_kernel_time"):
            operator = str(event["args"]["op_name"])  # type: ignore[index] # an object in JSON
            seconds[operator] += float(event["dur"]) / 1e6  # type: ignore[arg-type] # a number in JSON
            calls[operator] += 1
    for phase, duration in phases.items():
        name = f"{_LAYER}, {phase.replace('_', ' ')}"
        seconds[name], calls[name] = duration, calls[_LAYER]
        seconds[_LAYER] -= duration  # what is left is outside the phases
    total = sum(seconds.values())
    return [
        Operator(name=name, seconds=seconds[name], share=seconds[name] / total, calls=calls[name])
        for name in sorted(seconds, key=lambda name: -seconds[name])
    ]
