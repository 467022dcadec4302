"""The scheduler's invariant holds after an interrupt at any line of a call.

The invariant: while rows are queued, a worker will run them, or everybody who waits has been told why not.
"""

import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays
from encort.runtime.serving.scheduler import Scheduler
from tests.runtime.fakes import Fakes, batch_of
from tests.runtime.interrupts import finishes, interrupted_calls
from tests.runtime.serving.helpers import SUMS, MakeScheduler, unfinished

TEXT = [[5, 6]]
WINDOWS = [[5, 6], [7], [8, 9]]


def occupy(fakes: Fakes, scheduler: Scheduler) -> None:
    """Make the only worker run the text `[1]` until `fakes.release()`."""
    fakes.holds[1] = threading.Event()
    runs = len(fakes.runs)
    scheduler.submit(batch_of([1]), SUMS)
    fakes.wait(runs=runs + 1)


def problems(fakes: Fakes, scheduler: Scheduler) -> Iterator[str]:
    """Use and close a scheduler after an interrupt, and say in what way it is broken."""
    texts = [scheduler.submit(batch_of([2, 2]), SUMS), scheduler.submit(batch_of(TEXT[0]), SUMS)]
    fakes.release()
    if unfinished(texts, timeout_s=2):
        yield "a text is not run"
    elif any(text.exception() for text in texts):
        yield f"a text fails: {[text.exception() for text in texts]}"
    if not finishes(scheduler.close):
        yield "close waits for ever"
    if not finishes(scheduler._engine.close):  # waits for the threads of all workers
        yield "a worker does not end"
    if scheduler._workers:
        yield f"{len(scheduler._workers)} workers are counted that do not run"
    if not (scheduler._queue.is_empty and scheduler._queue.knows_none and scheduler._queue._tokens == 0):
        yield f"the closed queue has {len(scheduler._queue)} rows and {scheduler._queue._tokens} tokens"


def broken_lines(
    fakes: Fakes, make_scheduler: MakeScheduler, make_call: Callable[[Scheduler], Callable[[], object]]
) -> dict[str, list[str]]:
    """Interrupt a call at each line, and return the lines after which a scheduler is broken."""
    schedulers: list[Scheduler] = []

    def prepare() -> Callable[[], object]:
        schedulers.append(make_scheduler())
        return make_call(schedulers[-1])

    broken = {line: list(problems(fakes, schedulers[-1])) for line in interrupted_calls(prepare)}
    assert len(broken) > 20, "too few lines: the call was not traced"
    return {line: faults for line, faults in broken.items() if faults}


@pytest.mark.parametrize("rows", [TEXT, WINDOWS])
@pytest.mark.parametrize("busy", [False, True])
def test_an_interrupted_submit_leaves_the_scheduler_working(
    fakes: Fakes, make_scheduler: MakeScheduler, rows: Sequence[list[int]], *, busy: bool
) -> None:
    def make_call(scheduler: Scheduler) -> Callable[[], object]:
        if busy:
            occupy(fakes, scheduler)
        return lambda: scheduler.submit(batch_of(*rows), SUMS)

    assert broken_lines(fakes, make_scheduler, make_call) == {}


def test_an_interrupted_submit_leaves_the_callers_of_the_same_text_their_result(
    fakes: Fakes, make_scheduler: MakeScheduler
) -> None:
    first: list[Future[Arrays]] = []

    def make_call(scheduler: Scheduler) -> Callable[[], object]:
        occupy(fakes, scheduler)
        first.append(scheduler.submit(batch_of(*TEXT), SUMS))
        return lambda: scheduler.submit(batch_of(*TEXT), SUMS)

    assert broken_lines(fakes, make_scheduler, make_call) == {}
    fakes.release()
    assert [future.exception(2) for future in first] == [None] * len(first)


@pytest.mark.parametrize("rows", [TEXT, WINDOWS])
def test_an_interrupted_cancel_leaves_the_scheduler_working(
    fakes: Fakes, make_scheduler: MakeScheduler, rows: Sequence[list[int]]
) -> None:
    def make_call(scheduler: Scheduler) -> Callable[[], object]:
        occupy(fakes, scheduler)
        return scheduler.submit(batch_of(*rows), SUMS).cancel

    assert broken_lines(fakes, make_scheduler, make_call) == {}


def test_an_interrupted_close_can_be_repeated(fakes: Fakes, make_scheduler: MakeScheduler) -> None:
    schedulers: list[Scheduler] = []

    def make_call() -> Callable[[], object]:
        schedulers.append(make_scheduler())
        occupy(fakes, schedulers[-1])
        threading.Timer(0.01, fakes.release).start()
        return schedulers[-1].close

    broken = {line: not finishes(schedulers[-1].close) for line in interrupted_calls(make_call)}
    assert any("sleep" in line for line in broken), "close did not wait"
    assert not any(broken.values()), broken
