"""Throughput and latency of `encort serve` beside the model in process, and beside another server.

    python -m encort.benchmarks.server.figures minilm.bundle --seconds 10 --rounds 5
    python -m encort.benchmarks.server.figures minilm.bundle --peer http://127.0.0.1:7997 --peer-model PATH

The peer is a server with OpenAI's /embeddings that runs already on the same cores, such as Infinity in an environment
of its own: `infinity_emb v2 --model-id CHECKPOINT --engine optimum --url-prefix ""`. Systems run in turn, in every
round, and the figures are medians.
"""

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import click
import numpy as np

import encort
from encort.benchmarks.race.workload import mixed_texts
from encort.benchmarks.server.client import Connection, started

CONNECTIONS, BATCH, LONE = 32, 64, 200
Ask = Callable[[Sequence[str]], Awaitable[object]]


@dataclass(frozen=True)
class Load:
    """Texts per second, and times of a request in seconds."""

    texts_per_s: float
    p50_s: float
    p99_s: float


async def load(asks: Sequence[Ask], texts: Sequence[str], *, batch: int, seconds: float) -> Load:
    """Send batches of texts from as many callers as there are functions, for some seconds."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def call(number: int, ask: Ask) -> None:
        position = number * 997
        while time.perf_counter() < end:
            some = [texts[(position + index) % len(texts)] for index in range(batch)]
            begun = time.perf_counter()
            await ask(some)
            times.append(time.perf_counter() - begun)
            position += batch

    begun = time.perf_counter()
    await asyncio.gather(*(call(number, ask) for number, ask in enumerate(asks)))
    p50, p99 = np.percentile(times, [50, 99])
    return Load(batch * len(times) / (time.perf_counter() - begun), float(p50), float(p99))


async def callers(stack: AsyncExitStack, url: str, count: int, model: str, encoding: str, path: str) -> list[Ask]:
    """Return functions that send texts to a server, each over its own connection."""

    def ask_over(connection: Connection) -> Ask:
        async def ask(texts: Sequence[str]) -> object:
            content = {"model": model, "input": texts, "encoding_format": encoding}
            answer = await connection.post(path, json.dumps(content).encode())
            if answer.status != 200:
                raise RuntimeError(f"{url} answered {answer.status}: {answer.body[:200]!r}")
            return answer

        return ask

    connections = [await Connection.open(url) for _ in range(count)]
    for connection in connections:
        stack.callback(connection.close)
    return [ask_over(connection) for connection in connections]


async def one_round(
    model: encort.Model, urls: dict[str, tuple[str, str, str]], texts: Sequence[str], seconds: float
) -> dict[str, Load]:
    """Measure each system once, by name. URLs have the model's name and the path of its route."""
    found: dict[str, Load] = {}
    async with AsyncExitStack() as stack, model.serving() as service:

        async def in_process(some: Sequence[str]) -> object:
            return await service.embed(some[0])

        async def offline(some: Sequence[str]) -> object:
            return await asyncio.to_thread(model.embed, list(some))

        systems: dict[str, list[Ask]] = {"in process": [in_process] * CONNECTIONS}
        for name, (url, served, path) in urls.items():
            systems[name] = await callers(stack, url, CONNECTIONS, served, "float", path)
        for name, asks in systems.items():
            found[f"{name}, {CONNECTIONS} callers"] = await load(asks, texts, batch=1, seconds=seconds)
            found[f"{name}, alone"] = await load(asks[:1], texts, batch=1, seconds=seconds)
        found[f"offline, batches of {BATCH}"] = await load([offline], texts, batch=BATCH, seconds=seconds)
        for name, (url, served, path) in urls.items():
            asks = await callers(stack, url, 2, served, "base64", path)
            found[f"{name}, batches of {BATCH}"] = await load(asks, texts, batch=BATCH, seconds=seconds)
    return found


def median(loads: Sequence[Load]) -> Load:
    """Return the medians of several rounds."""
    columns = zip(*((one.texts_per_s, one.p50_s, one.p99_s) for one in loads), strict=True)
    return Load(*map(statistics.median, columns))


@click.command()
@click.argument("bundle")
@click.option("--seconds", default=5.0, help="Seconds of each measurement.")
@click.option("--rounds", default=3, help="Rounds, each with all systems in turn.")
@click.option("--precision", default="auto", help="Precision of the model.")
@click.option("--workers", default=1, help="Processes of the server.")
@click.option("--peer", help="URL of another server with OpenAI's /embeddings.")
@click.option("--peer-model", default="default", help="The peer's name of its model.")
def figures(
    bundle: str, seconds: float, rounds: int, precision: str, workers: int, peer: str | None, peer_model: str
) -> None:
    """Print the figures of BUNDLE, one line for each system and kind of load."""
    texts = mixed_texts()
    arguments = [f"m={bundle}", "--precision", precision, "--workers", str(workers)]
    found: dict[str, list[Load]] = {}
    with encort.load(bundle, precision=precision) as model, started(arguments) as (_, url):  # type: ignore[arg-type]
        model.warm_up()
        urls = {"encort serve": (url, "m", "/v1/embeddings")}
        if peer is not None:
            urls["peer"] = (peer, peer_model, "/embeddings")
        for _ in range(rounds):
            for name, one in asyncio.run(one_round(model, urls, texts, seconds)).items():
                found.setdefault(name, []).append(one)
    for name, loads in found.items():
        of_all = median(loads)
        milliseconds = f"p50 {1000 * of_all.p50_s:.2f} ms, p99 {1000 * of_all.p99_s:.2f} ms"
        print(f"{name}: {of_all.texts_per_s:.0f} texts/s, {milliseconds}")


if __name__ == "__main__":
    figures()
