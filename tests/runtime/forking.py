"""Forked children, and a process that forks them while its model works: `python -m tests.runtime.forking BUNDLE`."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import encort
from encort.runtime.common.errors import EncortError

CHILD_S = 30
"""Seconds after which a child hangs. It takes a fraction of a second."""


def error_in_child(call: Callable[[], object], *, end_child: Callable[[], NoReturn]) -> str:
    """Call a function in a forked child.

    Args:
        call: The function.
        end_child: `sys.exit` for a process of its own. It unwinds the stack, so tests give `leave`.

    Returns:
        The error of the call, "hangs", or nothing if the child ended well.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _call(call, writer)
        end_child()
    os.close(writer)
    deadline = time.monotonic() + CHILD_S
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return "hangs"
        time.sleep(0.005)
    with os.fdopen(reader) as errors:
        return errors.read()


def leave() -> NoReturn:
    """End the process without the fixtures and exit handlers of the tests."""
    os._exit(0)


def _call(call: Callable[[], object], writer: int) -> None:
    try:
        call()
    except BaseException as error:
        os.write(writer, repr(error).encode())


def refused(call: Callable[[], object]) -> None:
    """Make a call that must say that the model was loaded before a fork."""
    try:
        call()
    except EncortError as error:
        if "before a fork" in str(error):
            return
        raise
    raise AssertionError("the call was not refused")


def main(bundle: str, *, busy: bool) -> None:
    """Fork children one after the other, and print the failures of each."""
    model = encort.load(bundle, threads=2)
    model.warm_up()
    service, end = model.serving().__enter__(), threading.Event()

    def repeat(call: Callable[[], object]) -> None:
        while not end.is_set():
            call()

    def load_again() -> None:
        with encort.load(bundle, threads=2) as again:
            again.warm_up()
            again.embed(["hello"] * 40)

    runs: list[Callable[[], object]] = [
        lambda: model.embed(["hello"]),
        lambda: model.embed(["hello"] * 40),
        lambda: service.embed("hello"),
    ]
    threads = [threading.Thread(target=repeat, args=(call,)) for call in [*runs, model.stats]] if busy else []
    for thread in threads:
        thread.start()
    stream = model.tokenize_stream(["hello"] * 100, chunk=20)
    next(stream)
    calls = {
        "end": lambda: None,
        "run": lambda: [refused(call) for call in runs],
        "stats": model.stats,
        "stream": lambda: refused(lambda: list(stream)),
        "close the stream": stream.close,
        "close": model.close,
        "load": load_again,
    }
    for name, call in calls.items():
        sys.stdout.write(f"{name}: {error_in_child(call, end_child=sys.exit) or 'ends'}\n")
        sys.stdout.flush()  # or the next child prints it too
    end.set()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(sys.argv[1], busy="busy" in sys.argv)
