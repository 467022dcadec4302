"""For all lengths and costs, a plan loses no text, keeps its limits, and beats simpler plans."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.common.arrays import Int64Array
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import TOKENS_PER_RUN, ExecutionSlots, makespan, plan

any_lengths = st.lists(st.integers(1, 2 * TOKENS_PER_RUN) | st.integers(1, 8), max_size=200).map(
    lambda lengths: np.array(lengths, np.int64)
)
short_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(lambda lengths: np.array(lengths, np.int64))
any_workers = st.integers(1, 64)
any_costs = st.builds(Costs, run=st.floats(0, 0.1), token=st.floats(1e-6, 1e-3), attention=st.floats(0, 1e-6))
device_slots = st.builds(
    ExecutionSlots,
    parallel=st.integers(1, 8),
    in_flight=st.just(2),
    sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=3).map(sorted),
    max_padded_tokens=st.integers(1, 8192),
)
both_layouts = pytest.mark.parametrize("mixed", [False, True], ids=["equal length", "mixed"])


def seconds_of(micro_batches: list[Int64Array], lengths: Int64Array, workers: int, costs: Costs) -> float:
    return makespan([costs.seconds(lengths[batch]) for batch in micro_batches], workers=workers)


@both_layouts
@given(lengths=any_lengths, workers=any_workers, costs=any_costs)
def test_every_text_is_planned_exactly_once(mixed: bool, lengths: Int64Array, workers: int, costs: Costs) -> None:
    planned = np.concatenate([[], *plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)])
    assert sorted(planned.tolist()) == list(range(len(lengths)))


@given(lengths=any_lengths, workers=any_workers, costs=any_costs)
def test_lengths_are_mixed_only_if_the_layout_allows_it(lengths: Int64Array, workers: int, costs: Costs) -> None:
    for batch in plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=False):
        assert len(set(lengths[batch].tolist())) == 1


@both_layouts
@given(lengths=any_lengths, workers=any_workers, costs=any_costs)
def test_only_a_single_text_may_exceed_the_tokens_of_a_run(
    mixed: bool, lengths: Int64Array, workers: int, costs: Costs
) -> None:
    for batch in plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed):
        assert len(batch) == 1 or lengths[batch].sum() <= TOKENS_PER_RUN


@both_layouts
@given(lengths=any_lengths, workers=any_workers, costs=any_costs)
def test_the_longest_texts_come_first(mixed: bool, lengths: Int64Array, workers: int, costs: Costs) -> None:
    micro_batches = plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)
    longest = [int(lengths[batch[0]]) for batch in micro_batches]
    assert longest == sorted(longest, reverse=True)


@both_layouts
@given(lengths=any_lengths, workers=any_workers, costs=any_costs)
def test_no_plan_is_slower_than_one_text_per_run(mixed: bool, lengths: Int64Array, workers: int, costs: Costs) -> None:
    planned = plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)
    one_per_run = list(np.argsort(-lengths, kind="stable")[:, None])
    limit = seconds_of(one_per_run, lengths, workers, costs)
    assert seconds_of(planned, lengths, workers, costs) <= limit * (1 + 1e-9)


@given(lengths=short_lengths, workers=any_workers, costs=any_costs)
def test_no_mixed_plan_is_slower_than_one_run_of_all_texts(lengths: Int64Array, workers: int, costs: Costs) -> None:
    planned = plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=True)
    limit = costs.seconds(np.full(len(lengths), lengths.max()))
    assert seconds_of(planned, lengths, workers, costs) <= limit * (1 + 1e-9)


@given(st.integers(1, 64), st.integers(1, TOKENS_PER_RUN), any_workers, any_costs)
def test_micro_batches_of_one_length_differ_by_at_most_one_text(
    texts: int, length: int, workers: int, costs: Costs
) -> None:
    planned = plan(np.full(texts, length), ExecutionSlots.of_cores(workers), costs=costs, mixed=False)
    sizes = [len(batch) for batch in planned]
    assert max(sizes) - min(sizes) <= 1


@both_layouts
@given(lengths=any_lengths)
def test_more_workers_are_never_slower(mixed: bool, lengths: Int64Array) -> None:
    plans = {
        workers: plan(lengths, ExecutionSlots.of_cores(workers), costs=Costs(), mixed=mixed)
        for workers in (1, 2, 4, 8, 16)
    }
    times = [seconds_of(planned, lengths, workers, Costs()) for workers, planned in plans.items()]
    assert times == sorted(times, reverse=True)


@both_layouts
@pytest.mark.parametrize(
    ("costs", "row"), [(Costs(run=1, token=1, attention=0), 8), (Costs(run=1, token=0, attention=1), 64)]
)
@pytest.mark.parametrize(("share", "runs"), [(0.49, 10), (0.51, 3)])
def test_texts_share_runs_if_a_run_costs_more_than_it_saves(
    mixed: bool, costs: Costs, row: int, share: float, runs: int
) -> None:
    # The last of four workers is done after three rows in three runs, or after four rows in one: half a row decides.
    costs = Costs(run=share * row, token=costs.token, attention=costs.attention)
    assert len(plan(np.full(10, 8), ExecutionSlots.of_cores(4), costs=costs, mixed=mixed)) == runs


@pytest.mark.parametrize(("run", "runs"), [(1.0, 1), (0.0, 15)])
def test_different_lengths_share_a_run_if_it_saves_more_than_padding_costs(run: float, runs: int) -> None:
    costs = Costs(run=run, token=1e-5, attention=1e-5)
    assert len(plan(np.arange(5, 20), ExecutionSlots.of_cores(1), costs=costs, mixed=True)) == runs


@given(lengths=any_lengths, slots=device_slots, costs=any_costs)
def test_a_device_gets_every_text_once_within_its_limits(
    lengths: Int64Array, slots: ExecutionSlots, costs: Costs
) -> None:
    planned = plan(lengths, slots, costs=costs, mixed=True)
    assert sorted(np.concatenate([[], *planned]).tolist()) == list(range(len(lengths)))
    for batch in planned:
        assert len(batch) == 1 or lengths[batch].sum() <= slots.tokens
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= slots.max_padded_tokens


def test_a_device_gets_its_texts_in_as_few_runs_as_possible() -> None:
    lengths = np.full(100, 10)
    slots = ExecutionSlots(parallel=1, in_flight=2, sizes=(50, 250))
    assert [len(batch) for batch in plan(lengths, slots, costs=Costs(run=1), mixed=True)] == [25] * 4


def plan_row_by_row(lengths: Int64Array, size: int, max_padded_tokens: int, costs: Costs) -> list[list[int]]:
    """Add rows to a run, the longest first, as long as the next row may share it."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches: list[list[int]] = []
    for row in order:
        batch = batches[-1] if batches else []
        longest = lengths[batch[0]] if batch else 0
        padding = costs.attention * (longest**2 - lengths[row] ** 2)
        has_room = sum(lengths[batch]) + lengths[row] <= size and (len(batch) + 1) * longest <= max_padded_tokens
        if batch and has_room and padding <= costs.run:
            batch.append(row)
        else:
            batches.append([row])
    return batches


@given(
    lengths=any_lengths,
    size=st.integers(1, 2048),
    max_padded_tokens=st.integers(1, 8192),
    # Costs are whole numbers, so that rounding decides nothing.
    costs=st.builds(Costs, run=st.integers(0, 4096), token=st.just(1), attention=st.integers(0, 4)),
)
def test_a_mixed_run_takes_rows_while_the_next_row_may_share_it(
    lengths: Int64Array, size: int, max_padded_tokens: int, costs: Costs
) -> None:
    slots = ExecutionSlots(parallel=1, in_flight=1, sizes=(size,), max_padded_tokens=max_padded_tokens)
    planned = plan(lengths, slots, costs=costs, mixed=True)
    assert [batch.tolist() for batch in planned] == plan_row_by_row(lengths, size, max_padded_tokens, costs)
