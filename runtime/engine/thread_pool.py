"""Threads that call functions in the order of their submission.

It stands in for `concurrent.futures.ThreadPoolExecutor`, which counts and starts its threads in `submit`. A signal
handler that raises there, as Ctrl-C does, can leave calls in the queue that no thread takes. Here `submit` does nothing
but put a call into a queue that is written in C.
"""

import os
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

from encort.runtime.common.errors import InputError
from encort.runtime.common.forks import new_lock
from encort.runtime.engine.future import Future

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")
Calls = SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
"""Calls that wait: functions, each with the future of its result.

None ends a thread, which leaves it there for the next thread."""

_END_S, _POLL_S = 1.0, 0.001
"""Seconds that an ended thread may take to leave the system, and seconds between two looks."""


class ThreadPool:
    """A fixed number of threads. They end when the pool is closed or dropped, and at the end of the process."""

    def __init__(self, threads: int, *, name: str) -> None:
        """Start all threads, so that a system that grants too few says so at once.

        Args:
            threads: Number of threads.
            name: First part of the threads' names.

        Raises:
            InputError: The system grants fewer threads.
        """
        self._calls: Calls = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock, self._closed = new_lock(), False
        # The threads know the queue, not the pool, so that a pool that nobody uses any more is collected.
        self._end = weakref.finalize(self, _end, self._calls, self._threads, os.getpid())
        for number in range(threads):
            thread = threading.Thread(target=_work, args=(self._calls,), name=f"{name}-{number}", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                self._end()
                raise InputError(
                    f"the system grants this process only {number} of the {threads} threads of a model: "
                    "load with fewer threads, or raise the limit of processes"
                ) from error
            self._threads.append(thread)

    def submit(
        self, function: Callable[Arguments, Result], *arguments: Arguments.args, **options: Arguments.kwargs
    ) -> Future[Result]:
        """Call a function in one of the threads. Cancel the future before the call begins, and it is not called.

        Raises:
            RuntimeError: The pool was closed.
        """
        future: Future[Result] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads were told to end")
            self._calls.put((future, lambda: function(*arguments, **options)))
        return future

    def close(self) -> None:
        """Wait until all calls have been made, then end the threads. Closing twice is fine."""
        with self._lock:
            self._closed = True
            self._calls.put(None)
        _join(self._threads)


def check_grant(threads: int) -> None:
    """Refuse a number of threads that the system does not grant, by starting and ending so many.

    ONNX Runtime waits for ever if it can start some of a session's threads and not all.

    Raises:
        InputError: The system grants fewer threads.
    """
    pool = ThreadPool(threads, name="encort-check")
    pool.close()
    # Python knows a thread as ended shortly before the system does. Where there is no such folder, this waits for none.
    folders = [Path(f"/proc/self/task/{thread.native_id}") for thread in pool._threads]
    deadline = time.monotonic() + _END_S
    while any(folder.exists() for folder in folders) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _work(calls: Calls) -> None:
    """Make calls until None comes."""
    while (call := calls.get()) is not None:
        future, function = call
        _call(future, function)
        del call, future, function  # or the thread keeps them while it waits
    calls.put(None)


def _call(future: Future[Any], function: Callable[[], Any]) -> None:
    if future.done():
        return
    try:
        result = function()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def _end(calls: Calls, threads: Sequence[threading.Thread], process: int) -> None:
    """Cancel the calls that wait, and end the threads. A forked child has no threads to end."""
    if os.getpid() != process:
        return
    while True:
        try:
            call = calls.get_nowait()
        except Empty:
            break
        if call is not None:
            call[0].cancel()
    calls.put(None)
    _join(threads)


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join()
