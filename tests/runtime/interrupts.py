"""An interrupt, such as Ctrl-C, before each line that a call executes, and before each return of a function.

Lines of the standard library count too: a lock that is acquired in Python code can stay acquired.
"""

import concurrent.futures._base
import contextlib
import itertools
import linecache
import re
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from encort.runtime.common import errors

RUNTIME = Path(errors.__file__).parents[1]
LIBRARIES = [module.__file__ for module in (concurrent.futures._base, contextlib, threading, weakref)]
LOCK = re.compile(r"\s*with self\.(\w+):")
LOCK_TYPES = (type(threading.Lock()), type(threading.RLock()))


class Interrupt(BaseException):
    """Stands for a KeyboardInterrupt."""


class InterruptBeforeLine:
    """A trace function that raises an `Interrupt` once, before a line is executed or a function returns.

    Attributes:
        place: File, number and text of the line; empty before the interrupt.
    """

    def __init__(self, index: int) -> None:
        """Interrupt at the line or return with this index, in the order of execution."""
        self.place = ""
        self._remaining = index
        self._events: Counter[tuple[FrameType, int]] = Counter()

    def __call__(self, frame: FrameType, event: str, _: Any) -> "InterruptBeforeLine | None":
        file = frame.f_code.co_filename
        if not (Path(file).is_relative_to(RUNTIME) or self._is_library_call(frame)):
            return None
        if event == "return" or (event == "line" and not self._releases_a_lock(frame)):
            if self._remaining == 0:
                self.place = f"{Path(file).name}:{frame.f_lineno} {linecache.getline(file, frame.f_lineno).strip()}"
                raise Interrupt
            self._remaining -= 1
        return self

    def _is_library_call(self, frame: FrameType) -> bool:
        """Return whether this is a function of the libraries that the call or a traced function calls.

        What stand-ins of the tests call is not traced.
        """
        caller = frame.f_back
        if frame.f_code.co_filename not in LIBRARIES or caller is None:
            return False
        return caller.f_trace is self or caller.f_code is interrupted_calls.__code__

    def _releases_a_lock(self, frame: FrameType) -> bool:
        """Return whether the line is a `with` over a lock that is executed a second time, at the end of its block.

        CPython handles no signal between the last line of a block and the release of a lock that is written in C.
        """
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        match = LOCK.match(line)
        if match is None:
            return False
        if not isinstance(getattr(frame.f_locals["self"], match[1]), LOCK_TYPES):
            return False
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
