"""Measure a job over a large corpus: its speed beside `Model.embed`, its memory, and what kills do to its output.

python -m encort.benchmarks.studies.corpus BUNDLE --rows 1000000

The texts are made of random words, with a seed. All rows run a little more than twice: 1,000,000 rows at 1,000 texts a
second take about 40 minutes. `--rows 20000 --kills 3` takes a few minutes. Each result is printed when it is there.
"""

import argparse
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset, parquet

import encort

SMALL = 10_000
"""Rows of the job whose memory the large one is compared with."""
PART_ROWS = 8192
_WORDS = [
    "my",
    "card",
    "the",
    "account",
    "is",
    "lost",
    "pin",
    "transfer",
    "where",
    "change",
    "order",
    "delivery",
    "late",
]
_FILE_ROWS = 100_000


def main(bundle: str, rows: int, kills: int, threads: int | None) -> None:
    """Run the measurements, and print each of them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        small_rows = min(rows, SMALL)
        alone(write_corpus, folder / "large", rows)
        alone(write_corpus, folder / "small", small_rows)
        options = [] if threads is None else ["--threads", str(threads)]
        before = alone(embed_rate, bundle, folder / "large", threads)
        _, small = run(bundle, folder / "small", folder / "small-out", options)
        seconds, large = run(bundle, folder / "large", folder / "out", options)
        after = alone(embed_rate, bundle, folder / "large", threads)
        tokens = pc.sum(dataset.dataset(folder / "out").to_table(columns=["tokens"])["tokens"]).as_py()
        rate, own = tokens / seconds, (before + after) / 2
        show("tokens per second of `Model.embed`, before and after", f"{before:,.0f}, {after:,.0f}")
        show("tokens per second of the job, with its start", f"{rate:,.0f} ({rate / own:.1%})")
        show(f"peak memory, {small_rows:,} rows", f"{small:,.0f} MiB")
        show(f"peak memory, {rows:,} rows", f"{large:,.0f} MiB ({large / small:.2f}x)")
        if kills:
            kill_and_resume(bundle, folder, options, seconds, kills)
            is_equal = are_equal(folder / "out", folder / "killed")
            show(f"output after {kills} kills", "equal" if is_equal else "DIFFERENT")


def show(measure: str, result: str) -> None:
    """Print a row of a Markdown table at once."""
    print(f"| {measure} | {result} |", flush=True)


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own.

    Linux counts the memory of a parent at the start of a child as the child's, so that this process has to stay small.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def are_equal(first: Path, second: Path) -> bool:
    """Return whether two outputs have the same rows in the same order. The memory holds one file of each."""
    pairs = itertools.zip_longest(*(sorted(folder.glob("*.parquet")) for folder in (first, second)))
    return all(None not in pair and parquet.read_table(pair[0]).equals(parquet.read_table(pair[1])) for pair in pairs)


def write_corpus(folder: Path, rows: int) -> None:
    """Write random texts of 2 to 30 words, with a seed."""
    folder.mkdir()
    source = random.Random(0)  # noqa: S311 - not for secrets
    for start in range(0, rows, _FILE_ROWS):
        numbers = range(start, min(rows, start + _FILE_ROWS))
        texts = [" ".join(source.choices(_WORDS, k=source.randint(2, 30))) for _ in numbers]
        parquet.write_table(pa.table({"id": numbers, "text": texts}), folder / f"{start:012}.parquet")


def embed_rate(bundle: str, corpus: Path, threads: int | None) -> float:
    """Return tokens per second of `Model.embed` on some of the texts, tokenization included."""
    texts = dataset.dataset(corpus).head(4 * PART_ROWS, columns=["text"])["text"].to_pylist()
    with encort.load(bundle, threads=threads) as model:
        model.embed(texts[:256])
        tokens = int(model.tokenize(texts).lengths.sum())
        start = time.perf_counter()
        model.embed(texts)
        return tokens / (time.perf_counter() - start)


def run(bundle: str, corpus: Path, output: Path, options: list[str]) -> tuple[float, float]:
    """Run a job, and return its seconds and its peak memory in MiB."""
    start = time.perf_counter()
    with started(bundle, corpus, output, options) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit("the job failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def kill_and_resume(bundle: str, folder: Path, options: list[str], seconds: float, kills: int) -> None:
    """Kill a job at random moments of the seconds that it takes, go on each time, and let the last run end."""
    source = random.Random(1)  # noqa: S311 - not for secrets
    moments = sorted(source.uniform(0, seconds) for _ in range(kills))
    for earlier, moment in itertools.pairwise([0, *moments]):
        with started(bundle, folder / "large", folder / "killed", options) as process:
            try:
                process.wait(timeout=moment - earlier)
            except subprocess.TimeoutExpired:
                process.kill()
            else:
                raise SystemExit(f"the job ended with {process.returncode} before it was killed")
    run(bundle, folder / "large", folder / "killed", options)


@contextmanager
def started(bundle: str, corpus: Path, output: Path, options: list[str]) -> "Iterator[subprocess.Popen[bytes]]":
    """Start a job, and wait for it at the end of the block."""
    command = [sys.executable, "-m", "encort", "embed", bundle, "--input", str(corpus), "--output", str(output)]
    with subprocess.Popen([*command, "--resume", "--part-rows", str(PART_ROWS), *options]) as process:
        yield process


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle with sentence embeddings")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the corpus")
    parser.add_argument("--kills", type=int, default=10, help="kills; 0 leaves them out")
    parser.add_argument("--threads", type=int, help="cores to use; default: all")
    arguments = parser.parse_args()
    main(arguments.bundle, arguments.rows, arguments.kills, arguments.threads)
