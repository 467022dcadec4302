"""The queue of rows by itself, without threads: the rows that it takes together, and the rows that it knows."""

import math
from collections.abc import Callable, Sequence

import pytest

from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.errors import InputTooLongError, OverloadedError
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.planner import ExecutionSlots
from encort.runtime.serving.requests import Request, WaitingRow
from encort.runtime.serving.row_queue import RowQueue
from tests.runtime.fakes import MakeEngine, batch_of

NOW = 100.0
"""Time at which rows are taken. Rows arrive at `1.0`, `2.0`, and so on."""

AddRow = Callable[..., WaitingRow]


@pytest.fixture
def engine(make_engine: MakeEngine) -> Engine:
    return make_engine()


@pytest.fixture
def queue(engine: Engine) -> RowQueue:
    """Return a queue of at most 1000 tokens for a graph that takes rows of equal length."""
    return RowQueue(engine, max_tokens=1000)


def ragged_queue(make_engine: MakeEngine, costs: Costs, **slots: float) -> RowQueue:
    """Return a queue for a graph that takes rows of mixed lengths."""
    options: dict[str, float] = {"parallel": 1, "in_flight": 1} | slots
    engine = make_engine(layout=Layout.RAGGED, costs=costs, slots=ExecutionSlots(**options))  # type: ignore[arg-type]
    return RowQueue(engine, max_tokens=1000)


def row_of(*ids: int, outputs: Sequence[str] = ("sums",), arrived: float = 0.0, wait_s: float = 0.0) -> WaitingRow:
    row = WaitingRow.of(batch_of(ids), 0, tuple(outputs), max_wait_s=0)
    row.arrived, row.due = arrived, arrived + wait_s
    return row


def request_of(rows: int = 1, *, deadline: float = math.inf) -> Request:
    return Request(rows, [False], deadline)


def add_all(queue: RowQueue, rows: Sequence[WaitingRow], *, deadline: float = math.inf) -> list[Request]:
    """Add each row for a request of its own. The first row arrives at 1.0, the second at 2.0."""
    requests = [request_of(deadline=deadline) for _ in rows]
    for number, (row, request) in enumerate(zip(rows, requests, strict=True)):
        row.arrived, row.due = row.arrived + number + 1, row.due + number + 1
        queue.add(row, request, 0)
    return requests


def take_all(queue: RowQueue) -> list[list[int]]:
    """Take micro-batches until the queue is empty, and return the first id of each of their rows."""
    runs = []
    while not queue.is_empty:
        rows, unwanted = queue.take(NOW)
        assert unwanted == []
        runs.append([int(row.inputs["input_ids"][0, 0]) for row in rows])
    return runs


def test_rows_of_equal_length_and_outputs_are_taken_together_with_the_oldest(queue: RowQueue) -> None:
    add_all(queue, [row_of(2, 2), row_of(3), row_of(4, 4), row_of(5, 5, outputs=["states"]), row_of(6)])
    assert len(queue) == 5
    assert take_all(queue) == [[2, 4], [3, 6], [5]]
    assert len(queue) == 0


def test_a_row_that_is_due_is_taken_before_an_older_row_that_is_not(queue: RowQueue) -> None:
    patient, due = row_of(2, 2, wait_s=NOW), row_of(3)
    add_all(queue, [patient, due])
    assert queue.seconds_until_due(NOW) == 0
    assert queue.take(NOW) == ([due], [])
    assert queue.seconds_until_due(NOW) == 1
    assert queue.seconds_until_due(NOW + 1) == 0


def test_rows_that_fill_a_run_are_due_at_once(engine: Engine, queue: RowQueue) -> None:
    half = engine.slots.tokens // 2
    add_all(queue, [row_of(*[2] * half, wait_s=math.inf)])
    assert queue.seconds_until_due(NOW) == math.inf
    add_all(queue, [row_of(*[3] * half, wait_s=math.inf)])
    assert queue.seconds_until_due(NOW) == 0
    assert take_all(queue) == [[2, 3]]


def test_a_deep_queue_counts_the_tokens_of_each_row_a_few_times(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = RowQueue(make_engine(), max_tokens=10_000)
    rows = [row_of(2, token, wait_s=math.inf) for token in range(2, 2002)]
    counted = []
    monkeypatch.setattr(WaitingRow, "tokens", property(lambda row: counted.append(row) or row.inputs["input_ids"].size))
    add_all(queue, rows)
    assert len(counted) < 10 * len(rows)


@pytest.mark.parametrize(
    ("run_s", "runs"),
    [pytest.param(5.1, [[2, 3]], id="a run costs more than padding"), pytest.param(4.9, [[2], [3]], id="less")],
)
def test_rows_of_mixed_lengths_share_a_run_if_that_costs_less(
    make_engine: MakeEngine, run_s: float, runs: list[list[int]]
) -> None:
    queue = ragged_queue(make_engine, Costs(run=run_s, token=1, attention=1))
    add_all(queue, [row_of(2, 2, 2), row_of(3, 3)])  # attention: 2 * 9 together, 9 + 4 in two runs
    assert take_all(queue) == runs


def test_a_run_of_mixed_lengths_has_at_most_the_padded_tokens_of_its_slot(make_engine: MakeEngine) -> None:
    queue = ragged_queue(make_engine, Costs(run=1000), max_padded_tokens=8)
    add_all(queue, [row_of(2, 2, 2, 2), row_of(3), row_of(4)])
    assert take_all(queue) == [[2, 3], [4]]


def test_each_of_the_parallel_workers_gets_its_share_of_the_tokens(make_engine: MakeEngine) -> None:
    queue = ragged_queue(make_engine, Costs(run=1000), parallel=2, in_flight=2)
    add_all(queue, [row_of(token, token) for token in range(2, 8)])
    assert take_all(queue) == [[2, 3, 4], [5], [6], [7]]


def test_a_known_row_is_shared_while_it_is_queued_and_while_it_runs(engine: Engine, queue: RowQueue) -> None:
    first, second, third = (request_of() for _ in range(3))
    queue.add(row_of(2, 2), first, 0)
    queue.add(row_of(2, 2), second, 0)
    ((row,), _) = queue.take(NOW)
    queue.add(row_of(2, 2), third, 0)
    assert queue.is_empty
    assert [request for request, _ in row.requests] == [first, second, third]
    stats = engine.recorder.stats()
    assert (stats.shared, stats.queued_tokens) == (2, 0)


def test_a_row_that_was_run_is_forgotten_and_a_newer_row_with_the_same_tokens_is_not(queue: RowQueue) -> None:
    older, newer = row_of(2, 2), row_of(2, 2)
    queue.add(older, request_of(), 0)
    queue.take(NOW)
    queue.forget(older)
    assert queue.knows_none
    queue.add(newer, request_of(), 0)
    queue.forget(older)
    assert not queue.knows_none
    assert queue.take(NOW) == ([newer], [])


def test_rows_have_room_up_to_the_bound(engine: Engine) -> None:
    queue = RowQueue(engine, max_tokens=4)
    add_all(queue, [row_of(2, 2), row_of(3)])
    queue.check_room([row_of(4)])
    with pytest.raises(OverloadedError, match="3 tokens wait, and 2 more would pass queue_tokens=4"):
        queue.check_room([row_of(4), row_of(5)])
    with pytest.raises(InputTooLongError, match="5 tokens does not fit into queue_tokens=4"):
        queue.check_room([row_of(*[4] * 5)])
    assert engine.recorder.stats().overloads == 1


def test_rows_that_are_known_and_rows_that_are_given_twice_need_no_more_room(engine: Engine) -> None:
    queue = RowQueue(engine, max_tokens=4)
    add_all(queue, [row_of(2, 2), row_of(3)])
    queue.check_room([row_of(2, 2), row_of(3), row_of(4), row_of(4)])


def test_a_row_without_a_waiting_request_is_taken_separately(engine: Engine, queue: RowQueue) -> None:
    rows = [row_of(2), row_of(3), row_of(4)]
    add_all(queue, rows[:1])
    cancelled = add_all(queue, rows[1:2])
    add_all(queue, rows[2:], deadline=NOW)
    cancelled[0].future.cancel()
    assert queue.take(NOW) == (rows[:1], rows[1:])
    assert engine.recorder.stats().queued_tokens == 0
    for row in rows[:1]:
        queue.forget(row)
    assert queue.knows_none  # the other rows were forgotten when they were taken


def test_only_queued_rows_without_a_waiting_request_are_removed(engine: Engine, queue: RowQueue) -> None:
    running, wanted, unwanted, unknown = row_of(2), row_of(3, 3), row_of(4, 4), row_of(5)
    requests = add_all(queue, [running])
    queue.take(NOW)
    requests += add_all(queue, [wanted, unwanted])
    for request in (requests[0], requests[2]):
        request.future.cancel()
    assert queue.remove_unwanted([running, wanted, unwanted, unknown]) == [unwanted]
    assert engine.recorder.stats().queued_tokens == 2
    assert queue.take(NOW) == ([wanted], [])


def test_a_row_past_its_deadline_stays_in_the_queue_until_it_is_taken(queue: RowQueue) -> None:
    late = row_of(2)
    add_all(queue, [late], deadline=NOW - 1)
    assert queue.remove_unwanted([late]) == []
    assert queue.take(NOW) == ([], [late])


def test_clear_returns_queued_and_running_rows_and_leaves_room(engine: Engine, queue: RowQueue) -> None:
    running, queued = row_of(2), row_of(3, 3)
    add_all(queue, [running])
    queue.take(NOW)
    add_all(queue, [queued])
    assert queue.clear() == [running, queued]
    assert (queue.is_empty, queue.knows_none, len(queue)) == (True, True, 0)
    assert engine.recorder.stats().queued_tokens == 0
    queue.check_room([row_of(*[4] * 1000)])
