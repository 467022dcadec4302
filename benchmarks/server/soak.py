"""A soak of `encort serve`: many connections, random lengths, disconnects, deadlines, reloads, and SIGTERM under load.

    python -m encort.benchmarks.server.soak minilm.bundle --minutes 10

The first server gets SIGTERM after half of the time, and another one follows it on the same port. Each reloads once.
Every answered request must equal the offline result, and every request must be answered or refused, except for those
after SIGTERM. The times of the refusals (429) and the memory of the servers are printed.
"""

import asyncio
import json
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import click
import numpy as np

import encort
from encort.benchmarks.server.client import Connection, started

TEXTS, MOST_WORDS, TOLERANCE = 400, 300, 2e-3
REFUSAL_S = 0.05
"""Seconds within which a full queue should refuse."""


@dataclass
class Soak:
    """Counts of a soak.

    Attributes:
        expected: The offline result of each text.
        statuses: Numbers of requests by status; "left" if the client disconnected, "no server" if it had no answer
            between SIGTERM and the start of the next server, and "lost" if it had none otherwise.
        wrong: Results that differ from the offline one.
        refusals_s: Seconds until each answer 429.
        memory_mib: Memory of each server, once a second.
        failures: What was wrong with a server that has ended.
        is_down: Whether a server has got SIGTERM, and the next one has not started.
        is_ending: Whether the clients stop.
    """

    expected: dict[str, np.ndarray]
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    refusals_s: list[float] = field(default_factory=list)
    memory_mib: list[list[float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    is_down: bool = False
    is_ending: bool = False

    def without_answer(self, error: Exception, *, was_down: bool) -> str:
        """Return the status of a request that failed. An answer that was cut in the middle is always lost."""
        is_cut = isinstance(error, asyncio.IncompleteReadError) and (error.partial or error.expected)
        return "no server" if (was_down or self.is_down) and not is_cut else "lost"


async def client(soak: Soak, url: str, seed: int) -> None:
    """Send requests until the end; one in ten is left, and one in ten has 5 ms."""
    chance = random.Random(seed)  # noqa: S311 - load, no secret
    connection: Connection | None = None
    while not soak.is_ending:
        text, kind = chance.choice(list(soak.expected)), chance.random()
        body = json.dumps({"inputs": text}).encode()
        begun, was_down = perf_counter(), soak.is_down
        try:
            connection = connection or await Connection.open(url)
            if kind < 0.1:
                connection.send("/embed", body)
                await asyncio.sleep(chance.random() / 50)
                connection.close()
                connection, status = None, "left"
            else:
                headers = {"x-request-timeout-ms": "5"} if kind < 0.2 else {}
                answer = await connection.post("/embed", body, headers)
                status = str(answer.status)
                if answer.status == 200:
                    soak.wrong += not np.allclose(answer.value[0], soak.expected[text], atol=TOLERANCE)
                elif answer.status == 429:
                    soak.refusals_s.append(perf_counter() - begun)
        except (OSError, asyncio.IncompleteReadError) as error:
            connection, status = None, soak.without_answer(error, was_down=was_down)
            await asyncio.sleep(0.5)
        soak.statuses[status] += 1


async def watch(soak: Soak, process: "subprocess.Popen[str]", seconds: float) -> None:
    """Note the memory of a server for some time, and reload its model in the middle."""
    begun, is_reloaded = perf_counter(), False
    memory: list[float] = []
    soak.memory_mib.append(memory)
    while (passed := perf_counter() - begun) < seconds:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        memory.append(pages * 4096 / 2**20)
        if not is_reloaded and passed > seconds / 2:
            is_reloaded = True
            process.send_signal(signal.SIGHUP)
        await asyncio.sleep(min(1.0, seconds / 10))


async def end(soak: Soak, process: "subprocess.Popen[str]") -> None:
    """End a server by SIGTERM, and note whether it failed."""
    process.send_signal(signal.SIGTERM)
    status = await asyncio.to_thread(process.wait, 120)
    assert process.stderr is not None
    errors = process.stderr.read().strip()
    print(f"a server has ended with status {status}: {errors or 'no messages'}")
    if status or "Traceback" in errors:
        soak.failures.append(f"a server has ended with status {status} and messages")


async def run(soak: Soak, arguments: Sequence[str], *, seconds: float, connections: int) -> None:
    """Run two servers on one port, one after the other, with the clients beside them."""
    port = 0
    clients: asyncio.Future[list[None]] | None = None
    for is_last in (False, True):
        with ExitStack() as stack:
            process, url = await asyncio.to_thread(stack.enter_context, started(arguments, port=port))
            port, soak.is_down = int(url.rpartition(":")[2]), False
            clients = clients or asyncio.gather(*(client(soak, url, seed) for seed in range(connections)))
            await watch(soak, process, seconds / 2)
            soak.is_down, soak.is_ending = True, is_last
            await end(soak, process)
    assert clients is not None
    await clients


def texts(seed: int) -> list[str]:
    """Return texts of random lengths."""
    chance = random.Random(seed)  # noqa: S311 - load, no secret
    words = [f"{syllable}{number}" for syllable in ("ba", "ko", "mi", "tu") for number in range(50)]
    return [" ".join(chance.choices(words, k=1 + int(MOST_WORDS * chance.random() ** 3))) for _ in range(TEXTS)]


@click.command()
@click.argument("bundle")
@click.option("--minutes", default=10.0, help="Length of the soak.")
@click.option("--connections", default=200, help="Connections at a time.")
@click.option("--queue-tokens", default=16384, help="Tokens that wait; few let the server refuse.")
def soak(bundle: str, minutes: float, connections: int, queue_tokens: int) -> None:
    """Soak a server of BUNDLE, and fail if a result is wrong or a request is lost."""
    with encort.load(bundle) as model:
        vectors = model.embed(samples := texts(1))
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    found = Soak(expected=dict(zip(samples, vectors, strict=True)))

    arguments = [f"m={bundle}", "--queue-tokens", str(queue_tokens)]
    asyncio.run(run(found, arguments, seconds=60 * minutes, connections=connections))
    print(f"{dict(found.statuses)}, wrong {found.wrong}")
    if found.refusals_s:
        half, nearly_all, most = 1000 * np.quantile(found.refusals_s, [0.5, 0.99, 1])
        late = sum(seconds > REFUSAL_S for seconds in found.refusals_s)
        print(f"{len(found.refusals_s)} refusals, {late} of them after more than {1000 * REFUSAL_S:g} ms")
        print(f"half of them in {half:.1f} ms, 99 % in {nearly_all:.1f} ms, all in {most:.1f} ms")
    for memory in found.memory_mib:
        steady = memory[len(memory) // 10 :]
        print(f"memory {steady[0]:.0f} MiB at first, {max(steady):.0f} at most, {steady[-1]:.0f} at the end")
    if found.wrong or found.statuses["lost"] or found.failures:
        raise click.ClickException("; ".join(["the soak has failed", *found.failures]))


if __name__ == "__main__":
    soak()
