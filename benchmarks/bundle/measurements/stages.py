"""Split the time of a workload into tokenization, runs, padding and the rest."""

from collections.abc import Sequence
from pathlib import Path

from encort.benchmarks.bundle.report import Stages
from encort.benchmarks.timing import elapsed
from encort.runtime.bundle.manifest import Precision
from encort.runtime.model import load
from encort.runtime.options import DeviceName, PrecisionName
from encort.runtime.text.token_batch import Text


def measure_stages(
    folder: Path, device: DeviceName, precision: PrecisionName | Precision, texts: Sequence[Text]
) -> Stages:
    """Measure on one core, where the stages do not overlap."""
    with load(folder, device=device, precision=precision, threads=1) as model:
        model.warm_up()
        before = model.stats()
        total = elapsed(model.predict, texts)
        after = model.stats()
    run = after.run_seconds.sum - before.run_seconds.sum
    tokenize = after.tokenize_seconds.sum - before.tokenize_seconds.sum
    tokens, padding = after.tokens - before.tokens, after.padding - before.padding
    padding_seconds = run * padding / max(1, tokens + padding)
    rest = max(0.0, total - run - tokenize)
    return Stages(tokenize=tokenize, run=run - padding_seconds, padding=padding_seconds, rest=rest)
