"""A soak of `encort serve`: many connections, random lengths, disconnects, deadlines, reloads, and SIGTERM at the end.

    python -m encort.benchmarks.server.soak minilm.bundle --minutes 10

Every answered request must equal the offline result, and every request must be answered or refused. The time of a
refusal (429) and the memory of the server are printed.
"""

import asyncio
import json
import random
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import click
import numpy as np

import encort
from encort.benchmarks.server.client import Connection, started

TEXTS, MOST_WORDS, TOLERANCE = 400, 300, 2e-3


@dataclass
class Soak:
    """Counts of a soak. Statuses: "left" for clients that disconnected, "lost" for requests without any answer."""

    expected: dict[str, np.ndarray]
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    refusals_s: list[float] = field(default_factory=list)
    memory_mib: list[float] = field(default_factory=list)
    is_ending: bool = False


async def client(soak: Soak, url: str, seed: int) -> None:
    """Send requests until the end; one in ten is left, and one in ten has 5 ms."""
    chance = random.Random(seed)  # noqa: S311 - load, no secret
    connection: Connection | None = None
    while not soak.is_ending:
        text, kind = chance.choice(list(soak.expected)), chance.random()
        body = json.dumps({"inputs": text}).encode()
        begun = perf_counter()
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
        except (OSError, asyncio.IncompleteReadError):
            connection, status = None, "after SIGTERM" if soak.is_ending else "lost"
        soak.statuses[status] += 1


async def watch(soak: Soak, process: "subprocess.Popen[str]", seconds: float) -> None:
    """Reload twice, note the memory, and end the server in the middle of the load."""
    begun, reloads = perf_counter(), [seconds / 3, 2 * seconds / 3]
    while (passed := perf_counter() - begun) < seconds:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        soak.memory_mib.append(pages * 4096 / 2**20)
        if reloads and passed > reloads[0]:
            reloads.pop(0)
            process.send_signal(signal.SIGHUP)
        await asyncio.sleep(min(1.0, seconds / 10))
    soak.is_ending = True
    process.send_signal(signal.SIGTERM)


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

    async def run(process: "subprocess.Popen[str]", url: str) -> None:
        clients = (client(found, url, seed) for seed in range(connections))
        await asyncio.gather(watch(found, process, 60 * minutes), *clients)

    with started([f"m={bundle}", "--queue-tokens", str(queue_tokens)]) as (process, url):
        asyncio.run(run(process, url))
        status = process.wait(120)
        assert process.stderr is not None
        errors = process.stderr.read()
    half, most = np.quantile(found.refusals_s or [0.0], [0.5, 0.99])
    refusals = f"in {1000 * half:.0f} ms, 99 % of them in {1000 * most:.0f} ms"
    memory = found.memory_mib[len(found.memory_mib) // 10 :]
    print(f"{dict(found.statuses)}, wrong {found.wrong}, refusals {refusals}, exit {status}")
    print(f"memory {memory[0]:.0f} MiB at first, {max(memory):.0f} at most, {memory[-1]:.0f} at the end")
    print(errors.strip())
    if found.wrong or found.statuses["lost"] or status or "Traceback" in errors:
        raise click.ClickException("the soak has failed")


if __name__ == "__main__":
    soak()
