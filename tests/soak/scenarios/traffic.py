"""Threads and asyncio tasks call one model and its service, with deadlines and cancels."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import encort
from encort.errors import DeadlineError, OverloadedError
from tests.soak.calls import CALLS, Call, Reference, Text
from tests.soak.memory import FlatMemory
from tests.soak.models import TEXTS, Models
from tests.soak.scenario import Scenario

TIMEOUTS_S = (None, None, 60, 0.05, 0.01, 0.001, 1e-6)
THREADS, TASKS = 24, 100
"""Most callers in one step."""


@dataclass(frozen=True)
class EndedCall:
    """A call that has ended.

    Attributes:
        call: The call.
        texts: Its texts.
        outcome: A result for each text, or the error.
        time: Time of its end, by `time.monotonic`.
    """

    call: Call
    texts: list[Text]
    outcome: list[Any] | BaseException
    time: float


class Traffic(Scenario):
    """Every call gets a right result, or an error that its deadline, its cancel or a full queue explains.

    A text whose caller has got an error is not run afterwards. Memory stays flat.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        super().__init__(models, folder)
        self._reference, self._memory = Reference(models), FlatMemory()
        self._model = encort.load(models.all_heads, threads=2)
        self._ended: list[EndedCall] = []
        self._taken: dict[bytes, float] = {}

    def step(self, random: Random) -> None:
        self._ended, self._taken = [], {}
        expected = asyncio.run(self._serve(random))
        assert len(self._ended) == expected, f"{expected - len(self._ended)} calls were lost"
        for ended in self._ended:
            self._check(ended)
        stats = self._model.stats()
        assert (stats.queued_tokens, stats.failures) == (0, 0), stats
        self._memory.measure()

    def close(self) -> None:
        self._model.close()
        self._reference.close()
        self._memory.check()

    async def _serve(self, random: Random) -> int:
        """Let threads and tasks call the model and one service, and return the number of calls."""
        context = self._model.serving(
            max_wait_ms=random.choice([0, 0, 1, 5]), queue_tokens=random.choice([200, 5000, 65536])
        )
        self._watch(context)
        loop, threads, tasks = asyncio.get_running_loop(), random.randrange(THREADS), random.randrange(TASKS)
        with ThreadPoolExecutor(THREADS) as pool, context as service:
            async with context as async_service:
                calls = await asyncio.gather(
                    *(loop.run_in_executor(pool, self._use, service, Random(random.random())) for _ in range(threads)),
                    *(self._await(async_service, Random(random.random())) for _ in range(tasks)),
                )
        return sum(calls)

    def _watch(self, context: Any) -> None:
        """Write down when each text is taken out of the queue to be run, the last time."""
        queue = context._scheduler._queue
        take = queue.take

        def watched(now: float) -> Any:
            rows, unwanted = take(now)
            self._taken |= {row.inputs["input_ids"].tobytes(): now for row in rows}
            return rows, unwanted

        queue.take = watched

    def _use(self, service: encort.Service, random: Random) -> int:
        """Call from a thread, and return the number of calls."""
        calls = random.randrange(20)
        for _ in range(calls):
            call = random.choice(CALLS)
            texts = [call.random_text(random)]
            outcome: list[Any] | BaseException
            try:
                if random.random() < 0.2:
                    texts *= random.randrange(1, 40)
                    outcome = list(call(self._model, texts))
                else:
                    outcome = [call(service, texts[0], timeout_s=random.choice(TIMEOUTS_S))]
            except (DeadlineError, OverloadedError) as error:
                outcome = error
            self._ended.append(EndedCall(call, texts, outcome, time.monotonic()))
        return calls

    async def _await(self, service: encort.AsyncService, random: Random) -> int:
        """Call from a task, sometimes cancel the call, and return the number of calls."""
        calls = random.randrange(8)
        for _ in range(calls):
            call = random.choice(CALLS)
            text = call.random_text(random)
            task = asyncio.create_task(call(service, text, timeout_s=random.choice(TIMEOUTS_S)))
            if random.random() < 0.3:
                await asyncio.sleep(random.choice([0, 0.001, 0.01, 0.1]) * random.random())
                task.cancel()
            await asyncio.wait([task])
            self._ended.append(EndedCall(call, [text], _outcome(task), time.monotonic()))
        return calls

    def _check(self, ended: EndedCall) -> None:
        """Compare a result with lone calls; look for a run after an error."""
        if not isinstance(ended.outcome, BaseException):
            self._reference.check(ended.call, ended.texts, ended.outcome)
            self.counts["results"] += len(ended.texts)
            return
        self.counts[type(ended.outcome).__name__] += 1
        (text,) = ended.texts
        if isinstance(text, str) and text not in TEXTS:  # no other caller has this text
            late_s = self._taken.get(self._reference.ids(text), 0) - ended.time
            assert late_s <= 0, f"{text!r} was run {late_s} s after its caller had got {ended.outcome!r}"


def _outcome(task: "asyncio.Task[Any]") -> list[Any] | BaseException:
    """Return the result of a task that is done, in a list, or the error that it may have."""
    try:
        return [task.result()]
    except (DeadlineError, OverloadedError, asyncio.CancelledError) as error:
        return error
