"""Time and memory of a process that serves one text and ends: from its start to its first result."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from encort.benchmarks.bundle.report import ColdStart
from encort.runtime.common.errors import EncortError
from encort.runtime.text.token_batch import Text

_SCRIPT = """
import json, pathlib, sys, time
started = time.time()
{imports}
imported = time.time()
request = json.load(sys.stdin)
texts = [tuple(text) if isinstance(text, list) else text for text in request.pop("texts")]
{load}
loaded = time.time()
run(texts[:1])
first = time.time()
def peak_mib():
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
peak_mib_first = peak_mib()
run(texts)
print(json.dumps([started, imported, loaded, first, peak_mib_first, peak_mib()]))
"""
_ENCORT = {
    "imports": "from encort.runtime.model import load",
    "load": 'run = load(request.pop("bundle"), **request).predict',
}
_EAGER = {
    "imports": (
        "from encort.benchmarks.bundle.torch_baseline import Eager\nfrom encort.runtime.bundle.bundle import Bundle"
    ),
    "load": 'run = Eager(Bundle.open(request.pop("bundle")), **request)',
}


def measure_cold_start(bundle: Path, device: str, precision: str, threads: int, texts: Sequence[Text]) -> ColdStart:
    """Start Python, load the bundle and run the first text; then run all texts, to measure the peak memory.

    Raises:
        EncortError: The process failed.
    """
    request = {"bundle": str(bundle), "device": device, "precision": precision, "threads": threads, "texts": texts}
    return _run(_SCRIPT.format(**_ENCORT), request, f"encort {precision}")


def measure_eager_cold_start(
    bundle: Path, checkpoint: str | None, threads: int, texts: Sequence[Text], *, name: str
) -> ColdStart:
    """Start Python, load the checkpoint in eager PyTorch, and run the texts as `measure_cold_start` does.

    Args:
        bundle: Bundle whose tokenizer is used.
        checkpoint: Folder or hub id; None takes the checkpoint that was exported.
        threads: Threads of PyTorch.
        texts: All texts of the workload.
        name: Name of the system in the result.

    Raises:
        EncortError: The process failed.
    """
    request = {"bundle": str(bundle), "checkpoint": checkpoint, "threads": threads, "texts": texts}
    return _run(_SCRIPT.format(**_EAGER), request, name)


def _run(script: str, request: object, system: str) -> ColdStart:
    start = time.time()
    process = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    if process.returncode != 0:
        raise EncortError(f"the process that loads {system} failed: {process.stderr.strip().splitlines()[-1]}")
    started, imported, loaded, first, peak_mib_first, peak_mib = json.loads(process.stdout.splitlines()[-1])
    return ColdStart(
        system=system,
        python_seconds=started - start,
        import_seconds=imported - started,
        load_seconds=loaded - imported,
        first_seconds=first - loaded,
        peak_mib_first=peak_mib_first,
        peak_mib=peak_mib,
    )
