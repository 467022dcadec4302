"""Checks that the memory of this process does not grow with time."""

import os
import time
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_SETTLED_S = 30
"""Seconds after which a process has taken what it needs for good: memory of the longest runs, arenas of all threads."""
_GROWTH = 24 * 2**20
"""Bytes by which the process may still grow."""


class FlatMemory:
    """Resident memory of this process, measured at any number of times."""

    def __init__(self) -> None:
        self._start, self._settled, self._last = time.monotonic(), 0, 0

    def measure(self) -> None:
        """Measure once."""
        self._last = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE
        if time.monotonic() - self._start < _SETTLED_S:
            self._settled = max(self._settled, self._last)

    def check(self) -> None:
        """Refuse growth after the first half minute."""
        grown = self._last - self._settled
        assert grown <= _GROWTH, f"memory grew by {grown / 2**20:.0f} MiB after the first half minute"
