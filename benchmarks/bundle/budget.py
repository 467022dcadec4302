"""Keep `encort bench` to the time that it announces, and show on stderr how far it is."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import Self

from encort.runtime.common.output.terminal import echo

LINE_SECONDS = 10.0
"""Seconds between two lines of one part where stderr is not a terminal."""


class TimeBudget:
    """Divides a time among the parts of a benchmark, in their order.

    When a part starts, it gets its share of the time that is left, by its weight among the parts still to come. If it
    takes more or less than that, the shares of all later parts change alike, and the end stays where it was.
    """

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock.

        Args:
            seconds: Time for everything.
            clock: Returns seconds; tests give their own.
        """
        self._clock, self._seconds, self._end = clock, seconds, clock() + seconds
        self._weights: dict[str, float] = {}
        self._is_terminal = sys.stderr.isatty()
        self._part, self._shown = "", -LINE_SECONDS

    def __enter__(self) -> Self:
        """Announce the time."""
        self.tell(f"about {self._seconds:.0f} s; --budget-s takes another time")
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the line of a terminal."""
        self._clear()

    @property
    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self._end - self._clock()

    def divide(self, weights: Mapping[str, float]) -> None:
        """Set the parts still to come, in their order, with their weights."""
        self._weights = dict(weights)

    def start(self, part: str) -> float:
        """Return the seconds that a part may take, and show that it starts.

        Args:
            part: The next of the parts.
        """
        self.show(part)
        weight, to_come = self._weights[part], sum(self._weights.values())
        del self._weights[part]
        return max(0.0, self.left) * weight / to_come

    def show(self, part: str, detail: str = "") -> None:
        """Show what is measured now and the time that is left.

        On a terminal one line changes. Elsewhere a line appears for each part, and every ten seconds within it.
        """
        now = self._clock()
        if self._is_terminal:
            sys.stderr.write(f"\r{self._line(part, detail)}\033[K")
            sys.stderr.flush()
        elif part != self._part or now - self._shown >= LINE_SECONDS:
            echo(f"encort bench: {self._line(part, detail)}", err=True)
            self._shown = now
        self._part = part

    def tell(self, line: str) -> None:
        """Show a line that stays."""
        self._clear()
        echo(f"encort bench: {line}", err=True)

    def _clear(self) -> None:
        if self._is_terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def _line(self, part: str, detail: str) -> str:
        left = f"{self.left:.0f} s left" if self.left >= 0 else f"{-self.left:.0f} s over the time"
        return f"{part}: {detail}, {left}" if detail else f"{part}, {left}"
