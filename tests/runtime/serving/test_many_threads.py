"""Many threads submit, cancel and wait at the same time: each gets its own result, and the counts add up."""

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from encort.runtime.common.errors import DeadlineError, OverloadedError
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import batch_of
from tests.runtime.serving.helpers import SUMS, MakeScheduler, expected_sums, sums

CALLERS = 16
CALLS = 100


def outcome_of_a_call(scheduler: Scheduler, random: np.random.Generator) -> str:
    """Submit a random row, sometimes with a short deadline, and sometimes cancel it."""
    row = random.integers(1, 9, random.integers(1, 6)).tolist()
    deadline = math.inf if random.random() < 0.7 else time.monotonic() + random.random() / 1000
    try:
        future = scheduler.submit(batch_of(row), SUMS, deadline=deadline)
    except OverloadedError:
        return "refused"
    if random.random() < 0.2 and future.cancel():
        return "cancelled"
    try:
        assert sums(future) == expected_sums(*row)
    except DeadlineError:
        return "late"
    return "done"


@pytest.mark.parametrize("threads", [1, 3])
def test_every_call_of_many_threads_has_its_own_outcome(make_scheduler: MakeScheduler, threads: int) -> None:
    scheduler = make_scheduler(threads=threads, queue_tokens=400)
    together = threading.Barrier(CALLERS)

    def call(seed: int) -> list[str]:
        random = np.random.default_rng(seed)
        together.wait(30)
        return [outcome_of_a_call(scheduler, random) for _ in range(CALLS)]

    with ThreadPoolExecutor(CALLERS) as pool:
        outcomes = [outcome for outcomes in pool.map(call, range(CALLERS)) for outcome in outcomes]
    scheduler.close()
    stats = scheduler._engine.recorder.stats()
    assert len(outcomes) == CALLERS * CALLS
    assert "done" in outcomes
    assert (stats.queued_tokens, stats.failures) == (0, 0)
    assert stats.overloads == outcomes.count("refused")
    assert stats.texts + stats.shared + stats.expired == len(outcomes) - outcomes.count("refused")
