"""`encort serve` in a process of its own."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

START_S = 60


@contextlib.contextmanager
def started(
    *bundles: Path, options: Sequence[str] = (), wait: bool = True
) -> "Iterator[tuple[subprocess.Popen[str], str]]":
    """Start `encort serve` on a free port, and give its process and, after a wait, its address.

    The bundles are named m, m1, m2 ...
    """
    named = [f"m{number or ''}={bundle}" for number, bundle in enumerate(bundles)]
    command = [sys.executable, "-m", "encort", "serve", *named, "--threads", "1", "--port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process, read_address(process) if wait else ""
        finally:
            process.terminate()


def read_address(process: "subprocess.Popen[str]") -> str:
    """Return the address that the server tells."""
    assert process.stderr is not None
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    lines = []
    for line in process.stderr:
        lines.append(line)
        if line.startswith("listening on "):
            timer.cancel()
            return line.removeprefix("listening on ").strip()
    raise AssertionError("".join(lines))
