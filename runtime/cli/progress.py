"""The progress of long commands: counts, rate and time left, on stderr."""

import sys
import time

from encort.runtime.common.output.terminal import echo

_SECONDS = {True: 0.5, False: 30.0}
"""Seconds between two lines, on a terminal and elsewhere."""


class Progress:
    """Shows how far a command is. On a terminal one line changes; elsewhere a line appears every half minute."""

    def __init__(self, total: int) -> None:
        """Begin to count.

        Args:
            total: Rows of all input.
        """
        self._total, self._rows, self._earlier, self._tokens = total, 0, 0, 0
        self._is_terminal = sys.stderr.isatty()
        self._start = self._shown = time.monotonic()

    def skip(self, rows: int) -> None:
        """Begin to measure time, behind rows of an earlier run, which have no part in the rate."""
        self._rows = self._earlier = rows
        self._start = self._shown = time.monotonic()

    def add(self, rows: int, tokens: int) -> None:
        """Count rows, and show the line if it is time."""
        self._rows += rows
        self._tokens += tokens
        now = time.monotonic()
        if now - self._shown >= _SECONDS[self._is_terminal]:
            self._shown = now
            self._show(self.line(now - self._start))

    def line(self, seconds: float) -> str:
        """Return the line after some seconds of work."""
        rate = (self._rows - self._earlier) / max(seconds, 1e-9)
        left = (self._total - self._rows) / rate if rate else 0
        return (
            f"{self._rows:,} of {self._total:,} texts, {rate:,.0f} texts/s, "
            f"{self._tokens / max(seconds, 1e-9):,.0f} tokens/s, {_duration(left)} left"
        )

    def close(self) -> None:
        """Show the last line."""
        if self._rows > self._earlier:
            self._show(self.line(time.monotonic() - self._start))
            if self._is_terminal:
                echo("", err=True)

    def _show(self, line: str) -> None:
        if self._is_terminal:
            sys.stderr.write(f"\r{line}\033[K")
            sys.stderr.flush()
        else:
            echo(f"encort: {line}", err=True)


def _duration(seconds: float) -> str:
    """Return `2 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
