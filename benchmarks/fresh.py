"""What a process pays that serves one text and ends: from its start to its first result, and how much memory."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from encort.benchmarks.results import Fresh
from encort.runtime.tokens import Text

_SCRIPT = """
import json, pathlib, sys, time
begin = time.time()
import encort.runtime.model
imported = time.time()
folder, precision, threads, texts, more = json.loads(sys.argv[1])
model = encort.runtime.model.load(folder, precision=precision, threads=threads)
loaded = time.time()
model.predict([tuple(text) if isinstance(text, list) else text for text in texts[:1]])
first = time.time()
def memory():
    (line,) = (line for line in pathlib.Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
at_first = memory()
if more:
    model.predict([tuple(text) if isinstance(text, list) else text for text in texts])
print(json.dumps([begin, imported, loaded, first, at_first, memory()]))
"""


def fresh_process(bundle: Path, precision: str, threads: int, texts: list[Text], *, more: bool = False) -> Fresh:
    """Start Python, load the bundle, run the first text.

    Args:
        texts: The first of them is run; of the others only the memory is measured.
        more: Run all of them.
    """
    asked = json.dumps([str(bundle), precision, threads, texts, more])
    start = time.time()
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", _SCRIPT, asked], check=True, capture_output=True, env=environment)
    begin, imported, loaded, first, at_first, at_end = json.loads(done.stdout)
    return Fresh(
        python_seconds=begin - start,
        import_seconds=imported - begin,
        load_seconds=loaded - imported,
        first_seconds=first - loaded,
        peak_mib_first=at_first,
        peak_mib=at_end,
    )
