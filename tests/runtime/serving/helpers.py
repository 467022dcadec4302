"""Texts, waiting and comparisons that the tests of schedulers and services share."""

import asyncio
import dataclasses
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays
from encort.runtime.serving.scheduler import Scheduler

MakeScheduler = Callable[..., Scheduler]
"""`make_scheduler(threads=2, max_wait_s=0.1, queue_tokens=1000, layout=...)`."""

SUMS = ["sums"]
"""The output of the fake sessions that most tests ask for."""
NEVER_S = 60
"""Timeout in seconds that no test reaches."""
SHORT_S = 0.05
"""Seconds after which a thread that is not blocked has continued."""

TEXTS = ["hello", "", "my card is lost", "안녕하세요 😀", "change my pin " * 5, "card " * 200]
PAIRS = [
    ("is it lost?", "my card is lost"),
    ("안녕?", "😀 hello 하이"),
    ("nothing", ""),
    ("pin?", "my pin is lost " * 60),
]
LONG = "card " * 20_000
"""A text far over the limit, and so long that an event loop does not tokenize it itself."""


def sums(future: Future[Arrays]) -> list[float]:
    """Wait for the output `sums` of a text of one row."""
    ((row,),) = future.result(10)
    values: list[float] = row.tolist()
    return values


def unfinished(futures: Sequence[Future[Arrays]], *, timeout_s: float = 10) -> list[Future[Arrays]]:
    """Wait until all futures have ended, and return those that have not ended in time."""
    end, waiting = time.monotonic() + timeout_s, []
    for future in futures:
        try:
            future.exception(max(0.0, end - time.monotonic()))
        except TimeoutError:
            waiting.append(future)
    return waiting


def expected_sums(*ids: int) -> list[int]:
    """Return the output `sums` of a row with these ids."""
    return [sum(ids), ids[0]]


def different_texts() -> list[str]:
    """Return thirty different texts of 1 to 30 words."""
    random = np.random.default_rng(0)
    words = ["card", "my", "lost", "hello", "pin", "change", "안녕", "play", "x9"]
    return [f"{index} " + " ".join(random.choice(words, index)) for index in range(30)]


async def wait_for_event(event: threading.Event) -> None:
    """Wait for an event of a thread without blocking the event loop."""
    assert await asyncio.to_thread(event.wait, 10)


async def wait_until(condition: Callable[[], bool], *, timeout_s: float = 5) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


def assert_same(result: Any, expected: Any) -> None:
    """Compare results in depth: text, labels and numbers of tokens exactly, other numbers within 1e-6."""
    if isinstance(expected, float | np.ndarray | np.floating):
        np.testing.assert_allclose(result, expected, atol=1e-6, rtol=1e-6)
    elif dataclasses.is_dataclass(expected):
        assert type(result) is type(expected)
        for field in dataclasses.fields(expected):
            assert_same(getattr(result, field.name), getattr(expected, field.name))
    elif isinstance(expected, Mapping):
        assert list(result) == list(expected)
        for key in expected:
            assert_same(result[key], expected[key])
    elif isinstance(expected, list):
        assert (type(result), len(result), vars(result)) == (type(expected), len(expected), vars(expected))
        for one, other in zip(result, expected, strict=True):
            assert_same(one, other)
    else:
        assert result == expected
