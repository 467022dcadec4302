"""Measure a job over a large corpus: its speed beside `Model.embed`, its memory, and what kills do to its output.

python -m encort.benchmarks.studies.corpus BUNDLE --rows 1000000

The texts are made of random words, with a seed. `--rows 20000 --kills 3` takes a few minutes.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
from pyarrow import dataset, parquet

import encort
from encort.runtime.common.output.markdown import table

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
    """Run the measurements, and print them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "large", rows)
        write_corpus(folder / "small", min(rows, SMALL))
        options = [] if threads is None else ["--threads", str(threads)]
        before = embed_rate(bundle, folder / "large", threads)
        seconds, small = run(bundle, folder / "small", folder / "small-out", options)
        seconds, large = run(bundle, folder / "large", folder / "out", options)
        after = embed_rate(bundle, folder / "large", threads)
        tokens = sum(dataset.dataset(folder / "out").to_table(columns=["tokens"])["tokens"].to_pylist())
        rate, own = tokens / seconds, (before + after) / 2
        lines = [
            ["tokens per second of `Model.embed`, before and after", f"{before:,.0f}, {after:,.0f}"],
            ["tokens per second of the job, with its start", f"{rate:,.0f} ({rate / own:.1%})"],
            [f"peak memory, {rows:,} rows", f"{large:,.0f} MiB"],
            [f"peak memory, {min(rows, SMALL):,} rows", f"{small:,.0f} MiB ({large / small:.2f}x)"],
        ]
        if kills:
            count = kill_and_resume(bundle, folder, options, seconds, kills)
            same = dataset.dataset(folder / "killed").to_table().equals(dataset.dataset(folder / "out").to_table())
            lines.append([f"output after {count} kills", "equal" if same else "DIFFERENT"])
        print("\n".join(table(["measure", "result"], lines)))


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


def kill_and_resume(bundle: str, folder: Path, options: list[str], seconds: float, kills: int) -> int:
    """Kill a job at random moments, go on each time, and return how often it was killed before it was done."""
    source = random.Random(1)  # noqa: S311 - not for secrets
    for count in range(kills):
        with started(bundle, folder / "large", folder / "killed", options) as process:
            try:
                process.wait(timeout=source.uniform(1, max(2, 2 * seconds / kills)))
                return count
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
    run(bundle, folder / "large", folder / "killed", options)
    return kills


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
