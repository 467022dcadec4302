"""An engine is idle again after an interrupt at any line of a run in the calling thread."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from encort.runtime.engine.engine import Engine
from tests.runtime.fakes import MakeEngine, batch_of
from tests.runtime.interrupts import finishes, interrupted_calls


def problems(engine: Engine) -> Iterator[str]:
    """Use and close an engine after an interrupt, and say in what way it is broken."""
    if not finishes(lambda: engine.run(batch_of([2, 2], [3]), ["sums"])):
        yield "the next run does not end"
    if not finishes(engine.close):
        yield "close waits for ever"
    if not engine.is_idle:
        yield "the engine is not idle"


@pytest.mark.parametrize(
    ("threads", "rows"),
    [(1, [[5, 6]]), (2, [[5, 6]]), (2, [[5, 6], [7], [8, 9, 10]])],
    ids=["one thread", "all cores", "several micro-batches"],
)
def test_an_interrupted_run_leaves_the_engine_working(
    make_engine: MakeEngine, threads: int, rows: Sequence[list[int]]
) -> None:
    engines: list[Engine] = []

    def prepare() -> Callable[[], object]:
        engines.append(make_engine(threads=threads))
        engines[-1].run(batch_of([5]), ["sums"])  # the second run alone opens the session with all cores
        return lambda: engines[-1].run(batch_of(*rows), ["sums"])

    broken = {line: list(problems(engines[-1])) for line in interrupted_calls(prepare)}
    assert len(broken) > 20, "too few lines: the call was not traced"
    assert {line: faults for line, faults in broken.items() if faults} == {}
