"""The fastest 8-bit graph that labelled data allows: what was tried, what it cost, what was taken."""

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tqdm import tqdm

from encort.export.evaluation import Evaluation
from encort.export.int8.calibration import Calibration
from encort.export.int8.model import QuantizedModel, by_sensitivity, quantize_model
from encort.export.int8.quantization import STRENGTHS
from encort.export.source.export_source import ExportSource
from encort.export.variants import write_fp32, write_int8
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import TOKENIZER_FILE, Metric, Precision, Variant
from encort.runtime.model import Model
from encort.runtime.options import LoadOptions

TABLE_FILE = "search.md"
_SMOOTHINGS = {"chosen a tensor": STRENGTHS, "0.75": (0.75,), "0.5": (0.5,)}
_EXCLUDED = (1, 2, 4, 8, 16)
_ROUNDS, _TIMED_EXAMPLES = 5, 256
_AS_FAST = 0.9
"""Part of the best speed that counts as the same, since timings differ by as much."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One graph that was tried.

    Attributes:
        precision: `fp32` or `int8`.
        smoothing: How much of the activations' range moves into the weights.
        excluded: Layers left in full precision; those that read one tensor go by the name of their first.
        metric: On the labelled data, in percent.
        drop: Points that it lost.
        latency_ms: Median time a text, of one worker a core.
        speedup: Against fp32 in the same rounds.
        chosen: Whether it is the bundle's first choice.
    """

    precision: Precision
    smoothing: str | None
    excluded: Sequence[str]
    metric: float
    drop: float
    latency_ms: float
    speedup: float
    chosen: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizationSearch:
    """What was tried.

    Attributes:
        metric: Name of the metric.
        examples: Number of labelled examples.
        max_drop: Points that may be lost.
        candidates: The first of them in full precision.
        model: The 8-bit model that was taken; None if none is fast and near enough.
    """

    metric: str
    examples: int
    max_drop: float
    candidates: Sequence[Candidate]
    model: QuantizedModel | None

    def certificate(self, variant: Variant, variants: Sequence[Variant]) -> Metric | None:
        """What the labelled data says of one of a bundle's variants; the first of each precision was measured."""
        if variant is not next(other for other in variants if other.precision is variant.precision):
            return None
        measured = [candidate for candidate in self.candidates if candidate.precision is variant.precision]
        chosen = [candidate for candidate in measured if candidate.chosen] or measured[:1]
        if not chosen:
            return None
        before, after = self.candidates[0].metric, chosen[0].metric
        return Metric(name=self.metric, before=before, after=after, examples=self.examples)

    def table(self) -> str:
        """The candidates in Markdown, the chosen one marked."""
        names = ("precision", "smoothing", "tensors in fp32", f"{self.metric}, %", "drop", "ms a text", "speed", "")
        rows = [names, ["---"] * len(names), *map(_cells, self.candidates)]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def save(self, folder: Path) -> None:
        """Write the table, as JSON, as Markdown and as a picture."""
        plain = {key: value for key, value in vars(self).items() if key not in ("candidates", "model")}
        plain["candidates"] = [asdict(candidate) for candidate in self.candidates]
        (folder / "search.json").write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        (folder / TABLE_FILE).write_text(self.table() + "\n", encoding="utf-8")
        _plot(self, folder / "search.svg")


def search(
    trained: ExportSource,
    folder: Path,
    calibration: Calibration,
    evaluation: Evaluation,
    *,
    max_drop: float,
    weight_bits: int,
    progress: bool = False,
) -> QuantizationSearch:
    """Try 8-bit graphs: each smoothing, with more and more layers in full precision until the budget holds.

    Args:
        folder: The bundle in the making, with its tokenizer.
        max_drop: Points of the metric that may be lost.
    """
    tried: list[tuple[Candidate, QuantizedModel | None]] = []
    with _opened(trained, folder, None, weight_bits) as full:
        judge = _Judge(full, evaluation)
        tried.append((judge.full_precision(), None))
        for smoothing, strengths in tqdm(_SMOOTHINGS.items(), desc="search", disable=None if progress else True):
            everything = quantize_model(trained, calibration.seen, weight_bits=weight_bits, strengths=strengths)
            for model, excluded in _excluding(trained, everything, calibration):
                with _opened(trained, folder, model, weight_bits) as eight_bit:
                    tried.append((judge.eight_bit(eight_bit, smoothing, excluded), model))
                if tried[-1][0].drop <= max_drop:
                    break
    best = _best([candidate for candidate, _ in tried], max_drop)
    return QuantizationSearch(
        metric=evaluation.metric,
        examples=len(evaluation.inputs),
        max_drop=max_drop,
        candidates=[replace(candidate, chosen=candidate is best) for candidate, _ in tried],
        model=next(model for candidate, model in tried if candidate is best),
    )


def _best(candidates: Sequence[Candidate], max_drop: float) -> Candidate:
    """Of the 8-bit graphs about as fast as the fastest within the budget, the one that loses least; else fp32."""
    full, *others = candidates
    allowed = [candidate for candidate in others if candidate.drop <= max_drop and candidate.speedup > 1 / _AS_FAST]
    if not allowed:
        return full
    fastest = max(candidate.speedup for candidate in allowed)
    return min(
        (candidate for candidate in allowed if candidate.speedup >= _AS_FAST * fastest),
        key=lambda candidate: candidate.drop,
    )


class _Judge:
    """Measures models against the one in full precision, in turn."""

    def __init__(self, full: Model, evaluation: Evaluation) -> None:
        self._full, self._evaluation = full, evaluation
        self._timed = evaluation.texts(_TIMED_EXAMPLES)
        self._before = evaluation.score(full)

    def full_precision(self) -> Candidate:
        return self._candidate(self._full, Precision.FP32, None, [])

    def eight_bit(self, model: Model, smoothing: str, excluded: Sequence[str]) -> Candidate:
        return self._candidate(model, Precision.INT8, smoothing, excluded)

    def _candidate(
        self, model: Model, precision: Precision, smoothing: str | None, excluded: Sequence[str]
    ) -> Candidate:
        metric = self._evaluation.score(model)
        rounds = [(self._seconds(self._full), self._seconds(model)) for _ in range(_ROUNDS)]
        return Candidate(
            precision=precision,
            smoothing=smoothing,
            excluded=excluded,
            metric=metric,
            drop=self._before - metric,
            latency_ms=1000 * statistics.median(seconds for _, seconds in rounds) / len(self._timed),
            speedup=statistics.median(full / seconds for full, seconds in rounds),
        )

    def _seconds(self, model: Model) -> float:
        begin = time.perf_counter()
        model.predict(self._timed)
        return time.perf_counter() - begin


def _excluding(
    trained: ExportSource, model: QuantizedModel, calibration: Calibration
) -> Iterator[tuple[QuantizedModel, Sequence[str]]]:
    """The model with nothing, then with ever more of its most sensitive layers in full precision."""
    yield model, []
    sensitive = by_sensitivity(model, trained.oracle, calibration.judged)
    for count in _EXCLUDED:
        if count < len(sensitive):
            yield model.without(sensitive[:count]), sensitive[:count]


@contextmanager
def _opened(trained: ExportSource, folder: Path, model: QuantizedModel | None, weight_bits: int) -> Iterator[Model]:
    """The model as users will load it, from a bundle for this one variant."""
    with TemporaryDirectory() as name:
        temporary = Path(name)
        shutil.copy(folder / TOKENIZER_FILE, temporary)
        if model is None:
            variants = write_fp32(trained, temporary)
        else:
            variants = write_int8(trained, model, temporary, weight_bits=weight_bits)
        with Model(Bundle(temporary, trained.manifest(temporary, variants)), LoadOptions()) as opened:
            yield opened


def _cells(candidate: Candidate) -> Sequence[str]:
    return (
        candidate.precision,
        candidate.smoothing or "",
        "all" if candidate.precision is Precision.FP32 else str(len(candidate.excluded)),
        f"{candidate.metric:.2f}",
        f"{candidate.drop:.2f}",
        f"{candidate.latency_ms:.2f}",
        f"{candidate.speedup:.1f}x",
        "taken" if candidate.chosen else "",
    )


def _plot(search: QuantizationSearch, file: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for candidate in search.candidates:
        is_within = candidate.drop <= search.max_drop
        axes.scatter(
            1 / candidate.speedup,
            candidate.metric,
            s=140 if candidate.chosen else 50,
            marker="*" if candidate.chosen else "o",
            color="tab:green" if is_within else "tab:red",
        )
        label = (
            candidate.precision
            if candidate.smoothing is None
            else f"{candidate.smoothing}, {len(candidate.excluded)} in fp32"
        )
        axes.annotate(
            label, (1 / candidate.speedup, candidate.metric), xytext=(5, 4), textcoords="offset points", fontsize=7
        )
    axes.axhline(search.candidates[0].metric - search.max_drop, color="gray", linestyle="--", linewidth=1)
    axes.set_xlabel("time a text, as a part of that of fp32 in the same rounds")
    axes.margins(x=0.2)
    axes.set_ylabel(f"{search.metric}, %")
    axes.set_title(f"{search.metric} on {search.examples} examples against latency; the star was taken", fontsize=9)
    figure.savefig(file)
