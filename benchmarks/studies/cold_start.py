"""Compare native and stock variants from the start of Python to the first result, and in memory.

python -m encort.benchmarks.studies.cold_start BUNDLE --rounds 15

BUNDLE has the variants fp32, int8, native-bf16 and native-int8. Each round starts one process of each, in turn.
Private memory is what every process has for itself; the peak also counts pages of files, which processes share.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from encort.runtime.common.output.markdown import table

SCRIPT = """
import json, pathlib, sys, time
from encort.runtime.model import load
imported = time.time()
bundle, precision, texts = json.load(sys.stdin)
model = load(bundle, precision=precision, threads=1)
loaded = time.time()
model.embed(texts[:1])
first = time.time()
status = lambda: dict(line.split(":") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
mib = lambda name: int(status()[name].split()[0]) / 1024
at_first = mib("VmHWM"), mib("RssAnon")
model.embed(texts)
print(json.dumps([model.variant.name, imported, loaded, first, *at_first, mib("VmHWM"), mib("RssAnon")]))
"""
WITHOUT_KERNELS = {"ENCORT_KERNELS_ISA": "none"}
SYSTEMS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "cpu-fp32": ("fp32", {}),
    "native-bf16": ("bf16", {}),
    "cpu-int8": ("int8", WITHOUT_KERNELS),
    "native-int8": ("int8", {}),
}
"""Precision and environment that load each variant."""
TEXTS = [f"Text {number} asks where the card is. " * (1 + number % 8) for number in range(256)]
COLUMNS = [
    *("import, s", "load, s", "first text, s", "start to first result, s"),
    *("peak at first, MiB", "private at first, MiB", "peak at last, MiB", "private at last, MiB"),
]


def main(bundle: Path, rounds: int) -> None:
    """Print the medians as a table, one row per variant."""
    figures: dict[str, list[list[float]]] = {name: [] for name in SYSTEMS}
    for _ in range(rounds):
        for name in SYSTEMS:
            figures[name].append(measure(bundle, name))
    rows = [[name, *(f"{median(column):.3f}" for column in zip(*runs, strict=True))] for name, runs in figures.items()]
    print(f"{rounds} processes each, in turn, medians\n")
    print("\n".join(table(["variant", *COLUMNS], rows)))


def measure(bundle: Path, name: str) -> list[float]:
    """Start a process that loads the variant, embeds one text and then all, and return the figures of `COLUMNS`."""
    precision, environment = SYSTEMS[name]
    start = time.time()
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([str(bundle), precision, TEXTS]),
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    variant, imported, loaded, first, *memory = json.loads(result.stdout)
    if variant != name:
        raise SystemExit(f"{bundle} gives {variant} in place of {name}")
    return [imported - start, loaded - imported, first - loaded, first - start, *memory]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    main(arguments.bundle, arguments.rounds)
