"""A model, its service, or both are closed while threads and asyncio tasks call them."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import encort
from encort.errors import ModelClosedError, OverloadedError
from tests.soak.calls import CALLS, Call, Reference, Text
from tests.soak.models import Models
from tests.soak.scenario import Scenario

MOST_CALLERS, TASKS = 16, 4


class Closing(Scenario):
    """Every call gets a right result or `ModelClosedError`, close returns, and no thread is left."""

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        self._reference = Reference(models)
        self._results: list[tuple[Call, list[Text], list[Any]]] = []

    def step(self, random: Random) -> None:
        self._results, before = [], set(threading.enumerate())
        model = encort.load(self.models.all_heads, threads=random.randrange(1, 4))
        self._close_under_load(model, random)
        left = set(threading.enumerate()) - before
        assert not left, f"the threads {left} have not ended"
        for call, texts, results in self._results:
            self._reference.check(call, texts, results)
        self.counts["results"] += len(self._results)

    def close(self) -> None:
        self._reference.close()

    def _close_under_load(self, model: encort.Model, random: Random) -> None:
        """Start callers, close the model, its service or both from several threads, and wait for the callers."""
        context = model.serving(max_wait_ms=random.choice([0, 2, 50]), queue_tokens=random.choice([200, 65536]))
        callers = random.choices([self._call_model, self._call_service, self._await_service], k=MOST_CALLERS)
        closes = random.choices([model.close, lambda: context.__exit__(None, None, None)], k=random.randrange(1, 4))
        with ThreadPoolExecutor(len(callers) + len(closes)) as pool:
            calls = [pool.submit(caller, model, context, Random(random.random())) for caller in callers]
            try:
                time.sleep(random.choice([0, 0.001, 0.01, 0.1]) * random.random())
                for close in [pool.submit(close) for close in closes]:
                    close.result()
            finally:
                model.close()
            for call in calls:
                call.result()
        self.counts["closes"] += len(closes)
        self.counts["callers"] += len(callers)

    def _call_model(self, model: encort.Model, _: Any, random: Random) -> None:
        """Call a model until it is closed."""
        while True:
            call = random.choice(CALLS)
            texts = [call.random_text(random) for _ in range(random.choice([1, 1, 40]))]
            try:
                self._results.append((call, texts, list(call(model, texts))))
            except ModelClosedError:
                return

    def _call_service(self, _: encort.Model, context: Any, random: Random) -> None:
        """Call a service until it is closed."""
        service = context.__enter__()
        while True:
            call = random.choice(CALLS)
            text = call.random_text(random)
            try:
                self._results.append((call, [text], [call(service, text)]))
            except OverloadedError:
                self.counts["refusals"] += 1
            except ModelClosedError:
                return

    def _await_service(self, _: encort.Model, context: Any, random: Random) -> None:
        """Call a service from tasks until it is closed."""

        async def call_until_closed(service: encort.AsyncService) -> None:
            while True:
                call = random.choice(CALLS)
                text = call.random_text(random)
                try:
                    self._results.append((call, [text], [await call(service, text)]))
                except OverloadedError:
                    await asyncio.sleep(0)
                except ModelClosedError:
                    return

        async def run() -> None:
            async with context as service:
                await asyncio.gather(*(call_until_closed(service) for _ in range(TASKS)))

        asyncio.run(run())
