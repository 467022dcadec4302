"""Search for the fastest int8 encoder that loses little on labelled data."""

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol

from tqdm import tqdm

from encort.export.int8.calibration import Calibration
from encort.export.int8.candidates import Candidate, QuantizationSearch
from encort.export.int8.model import QuantizedModel, by_sensitivity, quantize_model
from encort.export.int8.quantization import STRENGTHS
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Oracle
from encort.runtime.bundle.manifest import Precision
from encort.runtime.model import Model
from encort.runtime.text.token_batch import Text

log = logging.getLogger("encort")

_SMOOTHINGS = {"chosen per tensor": STRENGTHS, "0.75": (0.75,), "0.5": (0.5,)}
_EXCLUDED = (1, 2, 4, 8, 16)
"""Numbers of groups that are tried in full precision."""
_ROUNDS, _TIMED_EXAMPLES = 5, 256
_AS_FAST = 0.9
"""Part of the best speed that counts as equally fast, because timings vary by as much."""


class LabelledExamples(Protocol):
    """Labelled examples that candidates are judged by, such as `encort.export.evaluation.Evaluation`."""

    @property
    def metric(self) -> str:
        """Name of the metric."""

    @property
    def inputs(self) -> Sequence[Text]:
        """Texts or pairs."""

    def texts(self, count: int) -> list[Text]:
        """Return at most `count` inputs for timing."""

    def score(self, model: Model) -> float:
        """Return the metric of a loaded model, in percent."""


OpenModel = Callable[[QuantizedModel | None], AbstractContextManager[Model]]
"""Opens a quantized model as users load it; for None, the model in full precision."""


def search(
    source: ExportSource,
    calibration: Calibration,
    examples: LabelledExamples,
    open_model: OpenModel,
    *,
    max_drop: float,
    weight_bits: int,
    progress: bool = False,
) -> QuantizationSearch:
    """Measure int8 candidates: for each smoothing, exclude more and more groups until the metric holds.

    Args:
        source: Source of the export.
        calibration: Texts for the ranges, and texts for the sensitivity.
        examples: Labelled examples that candidates are judged by.
        open_model: Opens each candidate.
        max_drop: Points of the metric that a candidate may lose.
        weight_bits: 8, or 7 for processors without an exact product of bytes.
        progress: Show a progress bar on stderr.
    """
    _warn_small_drop(max_drop, examples)
    measured: list[tuple[Candidate, QuantizedModel | None]] = []
    with open_model(None) as full:
        judge = _Judge(full, examples)
        measured.append((judge.full_precision(), None))
        for smoothing, strengths in tqdm(_SMOOTHINGS.items(), desc="search", disable=None if progress else True):
            everything = quantize_model(source, calibration.seen, weight_bits=weight_bits, strengths=strengths)
            for model, excluded in _excluding(source, everything, calibration):
                with open_model(model) as opened:
                    candidate = judge.int8(opened, smoothing, excluded)
                measured.append((candidate, model))
                if candidate.drop <= max_drop:
                    break
    best = _best([candidate for candidate, _ in measured], max_drop)
    return QuantizationSearch(
        metric=examples.metric,
        examples=len(examples.inputs),
        max_drop=max_drop,
        candidates=[replace(candidate, chosen=candidate is best) for candidate, _ in measured],
        model=next(model for candidate, model in measured if candidate is best),
    )


def _warn_small_drop(max_drop: float, examples: LabelledExamples) -> None:
    """Log a warning if one more wrong example costs more than a candidate may lose."""
    step = 100 / len(examples.inputs)
    if max_drop < step and "Spearman" not in examples.metric:  # a correlation has no steps
        log.warning(
            "one more wrong example of %d costs %.2g points, and --max-drop allows %g: give more labelled examples, or "
            "allow more",
            *(len(examples.inputs), step, max_drop),
        )


def _excluding(
    source: ExportSource, model: QuantizedModel, calibration: Calibration
) -> Iterator[tuple[QuantizedModel, Sequence[str]]]:
    """Yield the model with no group excluded, then with more and more of its most sensitive groups excluded."""
    yield model, []
    sensitive = by_sensitivity(model, Oracle.of(source), calibration.judged)
    for count in _EXCLUDED:
        if count < len(sensitive):
            yield model.without(sensitive[:count]), sensitive[:count]


def _best(candidates: Sequence[Candidate], max_drop: float) -> Candidate:
    """Return the best candidate.

    Int8 candidates within `max_drop` that are about as fast as the fastest of them count as equally fast. The one of
    these that loses least is the best. It is fp32 if no int8 candidate within `max_drop` is faster.
    """
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
    """Measures models and compares them with the model in full precision."""

    def __init__(self, full: Model, examples: LabelledExamples) -> None:
        self._full, self._examples = full, examples
        self._timed = examples.texts(_TIMED_EXAMPLES)
        self._before = examples.score(full)

    def full_precision(self) -> Candidate:
        """Measure the model in full precision."""
        return self._candidate(self._full, Precision.FP32, None, [])

    def int8(self, model: Model, smoothing: str, excluded: Sequence[str]) -> Candidate:
        """Measure an int8 model; the arguments are those of `Candidate`."""
        return self._candidate(model, Precision.INT8, smoothing, excluded)

    def _candidate(
        self, model: Model, precision: Precision, smoothing: str | None, excluded: Sequence[str]
    ) -> Candidate:
        metric = self._examples.score(model)
        # Both models take turns, so that a change of the machine's speed slows both down.
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
        start = time.perf_counter()
        model.predict(self._timed)
        return time.perf_counter() - start
