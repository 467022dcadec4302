"""An interrupt, such as Ctrl-C, before each line that a call executes."""

import itertools
import linecache
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from encort.runtime.common import errors

RUNTIME = Path(errors.__file__).parents[1]
LOCK = re.compile(r"\s*with self\.(\w+):")
LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))


class Interrupt(BaseException):
    """Stands for a KeyboardInterrupt."""


class InterruptBeforeLine:
    """A trace function that raises an `Interrupt` once, before a line of the runtime is executed.

    Attributes:
        place: File, number and text of the line; empty before the interrupt.
    """

    def __init__(self, index: int) -> None:
        """Interrupt before the line with this index, in the order of execution."""
        self.place = ""
        self._remaining = index
        self._events: Counter[tuple[FrameType, int]] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> "InterruptBeforeLine | None":
        file = frame.f_code.co_filename
        if not Path(file).is_relative_to(RUNTIME):
            return None
        if event == "line" and not self._releases_a_lock(frame):
            if self._remaining == 0:
                self.place = f"{Path(file).name}:{frame.f_lineno} {linecache.getline(file, frame.f_lineno).strip()}"
                raise Interrupt
            self._remaining -= 1
        return self

    def _releases_a_lock(self, frame: FrameType) -> bool:
        """Return whether the line is a `with` over a lock that is executed a second time, at the end of its block.

        CPython handles no signal between the last line of a block and the release of a lock that is written in C.
        `Condition.__enter__` and `__exit__` are written in Python: an interrupt there leaves the lock held for ever.
        """
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        match = LOCK.match(line)
        if match is None:
            return False
        lock = getattr(frame.f_locals["self"], match[1])
        assert isinstance(lock, LOCK_TYPES), (
            f"an interrupt may leave this locked: {line.strip()} Use a Lock or an RLock"
        )
        self._events[frame, frame.f_lineno] += 1
        return self._events[frame, frame.f_lineno] % 2 == 0


def interrupted_calls(make_call: Callable[[], Callable[[], object]]) -> Iterator[str]:
    """Interrupt one call before its first line, another call before its second line, and so on for all lines.

    Args:
        make_call: Prepares a new call, and returns it.

    Yields:
        File, number and text of the line before which the last call was interrupted.
    """
    for index in itertools.count():
        call, interrupt = make_call(), InterruptBeforeLine(index)
        tracer = sys.gettrace()
        sys.settrace(interrupt)
        try:
            call()
        except Interrupt:
            pass
        finally:
            sys.settrace(tracer)
        if not interrupt.place:
            return
        yield interrupt.place


def finishes(function: Callable[[], object]) -> bool:
    """Call a function in another thread and return whether it returns."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(2)
    return not thread.is_alive()
