"""`DriftShadow`: a share of the live requests runs again in fp32, to see what the served precision changes."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        self._begun, self._spent_s = time.monotonic(), 0.0
        self._task: asyncio.Task[None] | None = None
        self._cosines = self._cosine_sum = 0.0
        self._summary: dict[str, Any] = {"compared": 0, "skipped": 0, "flips": 0, "min_cosine": None}

    @property
    def summary(self) -> dict[str, Any]:
        """Counts and cosines since the model began to serve; a value of JSON."""
        mean = self._cosine_sum / self._cosines if self._cosines else None
        return {"share": self._share, **self._summary, "mean_cosine": mean, "seconds": round(self._spent_s, 3)}

    def offer(
        self, spec: TaskSpec[Any], texts: Sequence[Text | TokenIds], items: Sequence[Any], overflow: Overflow | None
    ) -> None:
        """Compare the results of a request later, if it is drawn and there is time for it."""
        if random.random() >= self._share:  # noqa: S311 - nothing secret is drawn
            return
        is_busy = self._task is not None and not self._task.done()
        if is_busy or self._spent_s > self._most_time * (time.monotonic() - self._begun):
            self._summary["skipped"] += 1
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
                self._count(drift(item, expected))
        except EncortError as error:
            _LOG.warning("a comparison with fp32 failed: %s", type(error).__name__)
        finally:
            self._spent_s += time.monotonic() - begun

    def _count(self, found: Drift) -> None:
        self._summary["compared"] += 1
        self._summary["flips"] += bool(found.flipped)
        if found.cosine is not None:
            self._cosines, self._cosine_sum = self._cosines + 1, self._cosine_sum + found.cosine
            least = self._summary["min_cosine"]
            self._summary["min_cosine"] = found.cosine if least is None else min(least, found.cosine)
        self._observe(found)


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
