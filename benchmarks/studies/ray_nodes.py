"""Compare Ray Data on two local nodes with one, and kill an actor every so often.

python -m encort.benchmarks.studies.ray_nodes BUNDLE --rows 50000 --kill-seconds 20

Each node has one actor, and each actor one thread. The kills run on two nodes.
"""

import argparse
import os
import random
import signal
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import ray
from ray.cluster_utils import Cluster

from encort.benchmarks.studies.corpus import write_corpus
from encort.integrations.ray import Embed, run
from encort.runtime.common.output.markdown import table

_CPUS = 2
"""Logical cores of a node. Its actor takes all of them, so that no node has two actors."""


class Noted(Embed):
    """An actor that notes its process in a folder, so that it can be killed."""

    def __init__(self, folder: str, **options: Any) -> None:
        """Open the bundle; see `Embed`."""
        super().__init__(**options)
        (Path(folder) / str(os.getpid())).touch()


def main(bundle: str, rows: int, kill_seconds: float) -> None:
    """Run the measurements, and print them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus", rows)
        one, expected = measure(bundle, folder, nodes=1)
        two, same = measure(bundle, folder, nodes=2)
        _, killed = measure(bundle, folder, nodes=2, kill_seconds=kill_seconds)
    lines = [
        ["seconds on one node", f"{one:.1f}"],
        ["seconds on two nodes", f"{two:.1f} ({one / two:.2f}x)"],
        ["output of two nodes", "equal" if same.equals(expected) else "DIFFERENT"],
        [f"output with a kill every {kill_seconds:g} s", "equal" if killed.equals(expected) else "DIFFERENT"],
    ]
    print("\n".join(table(["measure", "result"], lines)))


def measure(bundle: str, folder: Path, *, nodes: int, kill_seconds: float | None = None) -> tuple[float, pa.Table]:
    """Return the seconds of a job behind the start of its actors, and the ids with their tokens and embeddings."""
    pids = folder / f"pids-{nodes}-{kill_seconds}"
    pids.mkdir()
    cluster = Cluster(
        initialize_head=True, connect=True, head_node_args={"num_cpus": _CPUS, "include_dashboard": False}
    )
    for _ in range(nodes - 1):
        cluster.add_node(num_cpus=_CPUS)
    stop = threading.Event()
    killer = threading.Thread(target=_kill, args=(pids, kill_seconds, stop))
    killer.start()
    try:
        blocks = ray.data.read_parquet(str(folder / "corpus")).repartition(8 * nodes).materialize()
        options: dict[str, Any] = {"folder": str(pids), "threads": 1, "num_cpus": _CPUS}
        dataset = run(Noted, blocks, bundle, actors=nodes, batch_rows=1024, **options)
        batches, start = [], 0.0
        for batch in dataset.iter_batches(batch_format="pyarrow", batch_size=None):
            start = start or time.perf_counter()  # the first block is there: all actors have started
            batches.append(batch.select(["id", "tokens", "embedding"]))
        seconds = time.perf_counter() - start
    finally:
        stop.set()
        killer.join()
        ray.shutdown()
        cluster.shutdown()
    return seconds, pa.concat_tables(batches).sort_by("id").combine_chunks()


def _kill(pids: Path, every: float | None, stop: threading.Event) -> None:
    """Kill an actor that has noted its process, every so many seconds."""
    source = random.Random(0)  # noqa: S311 - not for secrets
    while every is not None and not stop.wait(every):
        noted = sorted(pids.iterdir())
        if noted:
            victim = source.choice(noted)
            victim.unlink()
            os.kill(int(victim.name), signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle with sentence embeddings")
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the corpus")
    parser.add_argument("--kill-seconds", type=float, default=20, help="seconds between two kills")
    arguments = parser.parse_args()
    main(arguments.bundle, arguments.rows, arguments.kill_seconds)
