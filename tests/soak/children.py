"""Functions that run in a forked process, where a crash, a hang or an exit harms nothing else.

The parent must have no threads, sessions of ONNX Runtime or results of PyTorch's autograd: they do not survive a fork.
"""

import faulthandler
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")
_FORK = multiprocessing.get_context("fork")


class ChildError(Exception):
    """The function of a child raised an error, or the child crashed, was killed, or did not end."""


class Child(Generic[Result]):
    """A forked process that calls a function."""

    def __init__(self, function: Callable[[], Result]) -> None:
        """Start it."""
        self._receiver, sender = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_call, args=(function, sender), daemon=True)
        self._process.start()
        sender.close()

    def kill(self, after_s: float) -> bool:
        """Kill it with SIGKILL after some time, and return False if it has ended before."""
        if self._receiver.poll(after_s):
            return False
        self._process.kill()
        self._process.join()
        self._receiver.close()
        return True

    def result(self, limit_s: float) -> Result:
        """Wait for the end of the process and return what the function returned.

        Raises:
            ChildError: There is no result.
        """
        try:
            if not self._receiver.poll(limit_s):
                assert self._process.pid is not None
                os.kill(self._process.pid, signal.SIGABRT)  # its fault handler writes the stacks of its threads
                raise ChildError(f"a child has not ended within {limit_s} s; its stacks are on stderr")
            is_result, value = self._receiver.recv()
        except EOFError:
            self._process.join(limit_s)
            raise ChildError(f"a child died with exit code {self._process.exitcode}") from None
        finally:
            self._process.join(1)
            self._process.kill()
            self._process.join()
            self._receiver.close()
        if not is_result:
            raise ChildError(f"a child failed:\n{value}")
        result: Result = value
        return result


def in_child(function: Callable[[], Result], *, limit_s: float = 100) -> Result:
    """Call a function in a forked process and return its result.

    Raises:
        ChildError: There is no result within the limit.
    """
    return Child(function).result(limit_s)


def _call(function: Callable[[], Any], sender: Connection) -> None:
    faulthandler.enable()
    try:
        outcome = True, function()
    except BaseException:
        outcome = False, traceback.format_exc()
    sender.send(outcome)
