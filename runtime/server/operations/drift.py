"""`DriftShadow`: a share of the live requests runs again in fp32, to see what the served precision changes."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from encort.runtime.common.errors import EncortError
from encort.runtime.serving.async_service import CallResults
from encort.runtime.tasks.results import Classification, Matches
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.token_batch import Text, TokenIds
from encort.runtime.text.windows import Overflow
from encort.runtime.verification.tolerance import cosines

MOST_TEXTS = 8
"""Texts of one request that run again."""
_LOG = logging.getLogger("encort.server")


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Difference between the served result of a text and that in fp32. None for what results of this kind do not have.

    Attributes:
        cosine: Cosine of the vectors.
        flipped: Whether the label, the spans or the answers differ.
        difference: Absolute difference of a single number.
    """

    cosine: float | None = None
    flipped: bool | None = None
    difference: float | None = None


@dataclass(kw_only=True)
class DriftTotals:
    """Counts of the comparisons of one model.

    Attributes:
        compared: Texts that were compared.
        skipped: Requests that were drawn, but for which there was no time.
        flips: Texts whose label, spans or answers differ.
        cosines: Texts that have a cosine.
        cosine_sum: Sum of the cosines.
        min_cosine: The least of them; None without any.
        seconds: Time of the comparisons.
    """

    compared: int = 0
    skipped: int = 0
    flips: int = 0
    cosines: int = 0
    cosine_sum: float = 0.0
    min_cosine: float | None = None
    seconds: float = 0.0

    def count(self, drift: Drift) -> None:
        """Count a text that was compared."""
        self.compared += 1
        self.flips += bool(drift.flipped)
        if drift.cosine is not None:
            self.cosines, self.cosine_sum = self.cosines + 1, self.cosine_sum + drift.cosine
            self.min_cosine = min(drift.cosine, 1.0 if self.min_cosine is None else self.min_cosine)

    def summary(self) -> dict[str, Any]:
        """Return the counts and the mean cosine, as a value of JSON."""
        mean = self.cosine_sum / self.cosines if self.cosines else None
        kept = {name: getattr(self, name) for name in ("compared", "skipped", "flips", "min_cosine")}
        return {**kept, "mean_cosine": mean, "seconds": round(self.seconds, 3)}


def add_totals(parts: Iterable[DriftTotals]) -> DriftTotals:
    """Return the counts of several processes together."""
    total = DriftTotals()
    for part in parts:
        least = [cosine for cosine in (total.min_cosine, part.min_cosine) if cosine is not None]
        sums = {field.name: getattr(total, field.name) + getattr(part, field.name) for field in _SUMMED}
        total = DriftTotals(**sums, min_cosine=min(least, default=None))
    return total


_SUMMED = [field for field in fields(DriftTotals) if field.name != "min_cosine"]


class SpecRunner(Protocol):
    """Runs the texts of a spec, as `SpecService` does."""

    async def run(
        self, spec: TaskSpec[Any], texts: Sequence[Text | TokenIds], *, overflow: Overflow | None = None
    ) -> CallResults[Any]:
        """Return the results of texts."""


class DriftShadow:
    """Compares a share of the requests of one model.

    Its cost is bounded: one request at a time, few texts of each, and no more than a share of the time. A request never
    waits for it.

    Attributes:
        totals: Counts since the model began to serve.
    """

    def __init__(
        self, reference: SpecRunner, *, share: float, most_time: float, observe: Callable[[Drift], None]
    ) -> None:
        """Compare with a reference.

        Args:
            reference: Runs texts in fp32.
            share: Share of the requests that run again, from 0 to 1.
            most_time: Most time of the comparisons, as a share of the time that passes.
            observe: Gets the difference of each text.
        """
        self._reference, self._share, self._most_time, self._observe = reference, share, most_time, observe
        self._begun = time.monotonic()
        self._task: asyncio.Task[None] | None = None
        self.totals = DriftTotals()

    def summary(self, others: Iterable[DriftTotals] = ()) -> dict[str, Any]:
        """Return counts and cosines since the model began to serve, a value of JSON.

        Args:
            others: Counts of the model in other processes, which are added.
        """
        return {"share": self._share, **add_totals([self.totals, *others]).summary()}

    def offer(
        self, spec: TaskSpec[Any], texts: Sequence[Text | TokenIds], items: Sequence[Any], overflow: Overflow | None
    ) -> None:
        """Compare the results of a request later, if it is drawn and there is time for it."""
        if random.random() >= self._share:  # noqa: S311 - nothing secret is drawn
            return
        is_busy = self._task is not None and not self._task.done()
        if is_busy or self.totals.seconds > self._most_time * (time.monotonic() - self._begun):
            self.totals.skipped += 1
            return
        some = slice(0, MOST_TEXTS)
        self._task = asyncio.create_task(self._compare(spec, texts[some], items[some], overflow))

    async def close(self) -> None:
        """Wait for the comparison that has begun."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _compare(
        self, spec: TaskSpec[Any], texts: Sequence[Text | TokenIds], items: Sequence[Any], overflow: Overflow | None
    ) -> None:
        begun = time.monotonic()
        try:
            results = await self._reference.run(spec, texts, overflow=overflow)
            for item, expected in zip(items, results.items, strict=True):
                found = drift(item, expected)
                self.totals.count(found)
                self._observe(found)
        except EncortError as error:
            _LOG.warning("a comparison with fp32 failed: %s", type(error).__name__)
        finally:
            self.totals.seconds += time.monotonic() - begun


def drift(item: Any, expected: Any) -> Drift:
    """Return the difference between two results of a text."""
    if isinstance(item, Classification):
        return Drift(flipped=item.label != expected.label)
    if isinstance(item, Matches):
        return Drift(flipped=_places(item) != _places(expected))
    if isinstance(item, np.ndarray) and item.size > 1:
        # Vectors of tokens differ in number only if the tokenizers do, which are the same.
        return Drift(cosine=float(cosines([item], [expected])[0]))
    if isinstance(item, np.ndarray | np.floating | float):
        return Drift(difference=float(np.abs(np.asarray(item) - np.asarray(expected)).max()))
    return Drift()


def _places(matches: Matches[Any]) -> list[tuple[Any, int, int]]:
    return [(getattr(match, "label", None), match.start, match.end) for match in matches]
