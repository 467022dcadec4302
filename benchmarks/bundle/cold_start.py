"""What a process pays that serves one text and ends: from its start to its first result, and how much memory."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from encort.benchmarks.results import Fresh
from encort.runtime.common.errors import EncortError
from encort.runtime.text.token_batch import Text

_SCRIPT = """
import json, pathlib, sys, time
begin = time.time()
{imports}
imported = time.time()
asked = json.load(sys.stdin)
texts = [tuple(text) if isinstance(text, list) else text for text in asked.pop("texts")]
{load}
loaded = time.time()
run(texts[:1])
first = time.time()
def memory():
    status = pathlib.Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), None)
at_first = memory()
run(texts)
print(json.dumps([begin, imported, loaded, first, at_first, memory()]))
"""
_OURS = {
    "imports": "from encort.runtime.model import load",
    "load": 'run = load(asked.pop("bundle"), **asked).predict',
}
_EAGER = {
    "imports": (
        "from encort.benchmarks.bundle.torch_baseline import Eager\nfrom encort.runtime.bundle.bundle import Bundle"
    ),
    "load": 'run = Eager(Bundle.open(asked.pop("bundle")), **asked)',
}


def fresh_process(bundle: Path, device: str, precision: str, threads: int, texts: Sequence[Text]) -> Fresh:
    """Start Python, load the bundle, run the first text; then all of them, to see how much memory they take."""
    asked = {"bundle": str(bundle), "device": device, "precision": precision, "threads": threads, "texts": texts}
    return _measured(_SCRIPT.format(**_OURS), asked, f"encort {precision}")


def fresh_eager(bundle: Path, checkpoint: str | None, threads: int, texts: Sequence[Text], *, name: str) -> Fresh:
    """The same of eager PyTorch."""
    asked = {"bundle": str(bundle), "checkpoint": checkpoint, "threads": threads, "texts": texts}
    return _measured(_SCRIPT.format(**_EAGER), asked, name)


def _measured(script: str, asked: object, way: str) -> Fresh:
    start = time.time()
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    if done.returncode != 0:
        raise EncortError(f"a new process failed that loads {way}: {done.stderr.strip().splitlines()[-1]}")
    begin, imported, loaded, first, at_first, at_end = json.loads(done.stdout.splitlines()[-1])
    return Fresh(
        way=way,
        python_seconds=begin - start,
        import_seconds=imported - begin,
        load_seconds=loaded - imported,
        first_seconds=first - loaded,
        peak_mib_first=at_first,
        peak_mib=at_end,
    )
