"""Compare Ray Data on two local nodes with one, and kill an actor every so often.

python -m encort.benchmarks.studies.ray_nodes BUNDLE --rows 200000 --kill-seconds 20

Each node has one actor, and each actor one thread. The kills run on two nodes. At 500 texts a second per core, 200,000
rows take about a quarter of an hour. Each result is printed when it is there.
"""

import argparse
import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import ray
from pyarrow import dataset
from ray.cluster_utils import Cluster

from encort.benchmarks.studies.corpus import show, write_corpus
from encort.integrations.ray import Embed, run

_CPUS = 1
"""Logical cores of a node. Its actor takes all of them, so that no node has two actors."""
_BLOCK_ROWS = 1024
"""Rows of a block, and of a batch: each run has the same batches, so that its output is equal to the last bit."""
_STORE_BYTES = 2**30


class Noted(Embed):
    """An actor that notes its process in a folder, so that it can be killed."""

    def __init__(self, folder: str, **options: Any) -> None:
        """Open the bundle; see `Embed`."""
        super().__init__(**options)
        (Path(folder) / str(os.getpid())).touch()


def main(bundle: str, rows: int, kill_seconds: float) -> None:
    """Run the measurements, and print each of them."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_corpus(folder / "corpus", rows)
        one, expected = measure(bundle, folder, nodes=1)
        show("texts per second on one node", f"{one:,.0f}")
        two, same = measure(bundle, folder, nodes=2)
        show("texts per second on two nodes", f"{two:,.0f} ({two / one:.2f}x)")
        show("output of two nodes", "equal" if same.equals(expected) else "DIFFERENT")
        with killing(folder / "actors-killed", kill_seconds) as victims:
            _, killed = measure(bundle, folder, nodes=2, name="actors-killed")
        result = "equal" if killed.equals(expected) else "DIFFERENT"
        show(f"output with a kill every {kill_seconds:g} s", f"{result} after {len(victims)} kills")


def measure(bundle: str, folder: Path, *, nodes: int, name: str | None = None) -> tuple[float, pa.Table]:
    """Return rows per second of a job behind the start of its actors, and the ids with their tokens and embeddings."""
    actors = folder / (name or f"actors-{nodes}")
    actors.mkdir(exist_ok=True)
    settings = {"num_cpus": _CPUS, "object_store_memory": _STORE_BYTES}
    cluster = Cluster(initialize_head=True, connect=True, head_node_args={**settings, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(**settings)
    try:
        table = dataset.dataset(folder / "corpus").to_table()
        blocks = ray.data.from_arrow([table.slice(row, _BLOCK_ROWS) for row in range(0, len(table), _BLOCK_ROWS)])
        options: dict[str, Any] = {"folder": str(actors), "threads": 1, "num_cpus": _CPUS}
        results = run(Noted, blocks, bundle, actors=nodes, batch_rows=_BLOCK_ROWS, **options)
        batches, before, start = [], 0, 0.0
        for batch in results.iter_batches(batch_format="pyarrow", batch_size=None):
            batches.append(batch.select(["id", "tokens", "embedding"]))
            if not start and len(list(actors.iterdir())) >= nodes:
                start, before = time.perf_counter(), sum(map(len, batches))
        seconds = time.perf_counter() - start
    finally:
        ray.shutdown()
        cluster.shutdown()
    return (len(table) - before) / seconds, pa.concat_tables(batches).sort_by("id").combine_chunks()


@contextlib.contextmanager
def killing(actors: Path, every: float) -> Iterator[list[int]]:
    """Kill an actor that has noted its process in a folder, every so many seconds of the block.

    Yields:
        The processes that were killed so far.
    """
    source = random.Random(0)  # noqa: S311 - not for secrets
    stop, victims = threading.Event(), list[int]()

    def kill() -> None:
        while not stop.wait(every):
            noted = sorted(actors.iterdir()) if actors.exists() else []
            if noted:
                victim = source.choice(noted)
                victim.unlink()
                with contextlib.suppress(ProcessLookupError):  # Ray has stopped it
                    os.kill(int(victim.name), signal.SIGKILL)
                    victims.append(int(victim.name))

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield victims
    finally:
        stop.set()
        killer.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder of a bundle with sentence embeddings")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of the corpus")
    parser.add_argument("--kill-seconds", type=float, default=20, help="seconds between two kills")
    arguments = parser.parse_args()
    main(arguments.bundle, arguments.rows, arguments.kill_seconds)
