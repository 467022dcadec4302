"""A result that another thread will give.

It stands in for `concurrent.futures.Future`, whose lock is taken in Python code. A signal handler that raises there,
as Ctrl-C does, can leave that lock held, and the thread that has the result then waits for ever. Here every lock is
acquired and released by C code, and no step needs another one to have been finished.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any, Generic, TypeVar

from encort.runtime.common.forks import check_same_process

Result = TypeVar("Result")


class Future(Generic[Result]):
    """A result that another thread will give to the one thread that waits for it.

    The invariant: whoever acquires `_decision` first decides how it ends. All others change nothing.
    """

    def __init__(self) -> None:
        """Start without a result."""
        self._decision = threading.Lock()
        self._available = threading.Lock()
        self._available.acquire()
        self._process = os.getpid()
        self._value: Any = None
        self._error: BaseException | None = None
        self._is_available = False
        self._callbacks: deque[Callable[[], object]] = deque()

    def done(self) -> bool:
        """Return whether it has a result or an error, or was cancelled."""
        return self._decision.locked()

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the result and return it, or raise the error.

        Args:
            timeout_s: Seconds to wait at most; None waits without limit.

        Raises:
            TimeoutError: There was no result in time.
            CancelledError: It was cancelled.
            EncortError: The process is a fork, without the thread that would give the result.
        """
        error = self.exception(timeout_s)
        if error is not None:
            try:
                raise error
            finally:
                del error  # the error's traceback has this frame
        value: Result = self._value
        return value

    def exception(self, timeout_s: float | None = None) -> BaseException | None:
        """Wait for the end, and return the error; None if there is a result.

        Raises:
            TimeoutError: It has not ended in time.
            EncortError: See `result`.
        """
        if not self._is_available:
            check_same_process(self._process)
            self._available.acquire(timeout=-1 if timeout_s is None else timeout_s)
            if not self._is_available:
                raise TimeoutError
        return self._error

    def set_result(self, value: Result) -> None:
        """Give the result. A future that has ended stays as it is."""
        self._end(value, None)

    def set_exception(self, error: BaseException) -> None:
        """Give the error. A future that has ended stays as it is."""
        self._end(None, error)

    def cancel(self) -> bool:
        """End with a `CancelledError`. A future that has ended stays as it is.

        Returns:
            Whether it was cancelled by this call.
        """
        return self._end(None, CancelledError())

    def add_done_callback(self, callback: Callable[[], object]) -> None:
        """Call a function once, in the thread that ends the future; now, if it has ended."""
        self._callbacks.append(callback)
        if self._is_available:
            self._call_back()

    def _end(self, value: Result | None, error: BaseException | None) -> bool:
        if not self._decision.acquire(blocking=False):
            return False
        self._value, self._error = value, error
        self._is_available = True
        self._available.release()
        self._call_back()
        return True

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.popleft()
            except IndexError:  # another thread took the last one
                return
            callback()
