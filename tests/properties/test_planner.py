"""Whatever the lengths and the costs, a plan loses no text, keeps its budget and beats what is simpler."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import TOKENS_PER_RUN, ExecutionSlots, makespan, plan

lengths_of_texts = st.lists(st.integers(1, 2 * TOKENS_PER_RUN) | st.integers(1, 8), max_size=200).map(
    lambda lengths: np.array(lengths, np.int64)
)
short_texts = st.lists(st.integers(1, 40), min_size=1, max_size=12).map(lambda lengths: np.array(lengths, np.int64))
workers_of_a_machine = st.integers(1, 64)
costs_of_a_model = st.builds(Costs, run=st.floats(0, 0.1), token=st.floats(1e-6, 1e-3), attention=st.floats(0, 1e-6))
either_layout = pytest.mark.parametrize("mixed", [False, True], ids=["equal length", "mixed"])


def seconds(micro_batches, lengths, workers, costs):
    return makespan([costs.seconds(lengths[batch]) for batch in micro_batches], workers=workers)


@either_layout
@given(lengths=lengths_of_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_every_text_is_planned_exactly_once(mixed, lengths, workers, costs):
    planned = np.concatenate([[], *plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)])
    assert sorted(planned.tolist()) == list(range(len(lengths)))


@given(lengths=lengths_of_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_lengths_are_mixed_only_where_they_may(lengths, workers, costs):
    for batch in plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=False):
        assert len(set(lengths[batch].tolist())) == 1


@either_layout
@given(lengths=lengths_of_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_only_a_text_alone_may_pass_the_budget(mixed, lengths, workers, costs):
    for batch in plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed):
        assert len(batch) == 1 or lengths[batch].sum() <= TOKENS_PER_RUN


@either_layout
@given(lengths=lengths_of_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_the_longest_texts_come_first(mixed, lengths, workers, costs):
    planned = [
        int(lengths[batch[0]]) for batch in plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)
    ]
    assert planned == sorted(planned, reverse=True)


@either_layout
@given(lengths=lengths_of_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_no_plan_is_slower_than_one_by_one(mixed, lengths, workers, costs):
    planned = plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=mixed)
    one_by_one = list(np.argsort(-lengths, kind="stable")[:, None])
    found, limit = (seconds(every, lengths, workers, costs) for every in (planned, one_by_one))
    assert found <= limit * (1 + 1e-9)


@given(lengths=short_texts, workers=workers_of_a_machine, costs=costs_of_a_model)
def test_no_mixed_plan_is_slower_than_all_padded_in_one_run(lengths, workers, costs):
    planned = plan(lengths, ExecutionSlots.of_cores(workers), costs=costs, mixed=True)
    found = seconds(planned, lengths, workers, costs)
    assert found <= costs.seconds(np.full(len(lengths), lengths.max())) * (1 + 1e-9)


@given(st.integers(1, 64), st.integers(1, TOKENS_PER_RUN), workers_of_a_machine, costs_of_a_model)
def test_micro_batches_of_one_length_are_near_equal(texts, length, workers, costs):
    planned = plan(np.full(texts, length), ExecutionSlots.of_cores(workers), costs=costs, mixed=False)
    sizes = [len(batch) for batch in planned]
    assert max(sizes) - min(sizes) <= 1


@either_layout
@given(lengths=lengths_of_texts)
def test_more_workers_are_never_done_later(mixed, lengths):
    plans = {
        workers: plan(lengths, ExecutionSlots.of_cores(workers), costs=Costs(), mixed=mixed)
        for workers in (1, 2, 4, 8, 16)
    }
    times = [seconds(planned, lengths, workers, Costs()) for workers, planned in plans.items()]
    assert times == sorted(times, reverse=True)


@either_layout
@pytest.mark.parametrize(("costs", "row"), [({"token": 1, "attention": 0}, 8), ({"token": 0, "attention": 1}, 64)])
@pytest.mark.parametrize(("share", "runs"), [(0.49, 10), (0.51, 3)])
def test_runs_are_few_when_each_costs_more_than_it_saves(mixed, costs, row, share, runs):
    # The last of four workers is done after three rows in three runs, or after four rows in one: half a row decides.
    planned = plan(np.full(10, 8), ExecutionSlots.of_cores(4), costs=Costs(run=share * row, **costs), mixed=mixed)
    assert len(planned) == runs


@pytest.mark.parametrize(("run", "runs"), [(1.0, 1), (0.0, 15)])
def test_different_lengths_share_a_run_when_it_saves_more_than_padding_costs(run, runs):
    lengths = np.arange(5, 20)
    assert (
        len(plan(lengths, ExecutionSlots.of_cores(1), costs=Costs(run=run, token=1e-5, attention=1e-5), mixed=True))
        == runs
    )


lanes_of_devices = st.builds(
    ExecutionSlots,
    parallel=st.integers(1, 8),
    in_flight=st.just(2),
    sizes=st.lists(st.integers(1, 4096), min_size=1, max_size=3).map(sorted),
    max_padded_tokens=st.integers(1, 8192),
)


@given(lengths=lengths_of_texts, slots=lanes_of_devices, costs=costs_of_a_model)
def test_a_device_gets_every_text_once_within_its_tokens_and_places(lengths, slots, costs):
    planned = plan(lengths, slots, costs=costs, mixed=True)
    assert sorted(np.concatenate([[], *planned]).tolist()) == list(range(len(lengths)))
    for batch in planned:
        assert len(batch) == 1 or lengths[batch].sum() <= slots.tokens
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= slots.max_padded_tokens


def test_a_device_gets_its_texts_in_as_few_runs_as_its_tokens_allow():
    lengths = np.full(100, 10)
    slots = ExecutionSlots(parallel=1, in_flight=2, sizes=(50, 250))
    assert [len(batch) for batch in plan(lengths, slots, costs=Costs(run=1), mixed=True)] == [25] * 4


def row_by_row(lengths, size, places, costs):
    """Rows of mixed lengths, the longest first, as long as one more may share the run."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches = []
    for row in order:
        batch = batches[-1] if batches else []
        longest = lengths[batch[0]] if batch else 0
        padding = costs.pair * (longest**2 - lengths[row] ** 2)
        has_room = sum(lengths[batch]) + lengths[row] <= size and (len(batch) + 1) * longest <= places
        if batch and has_room and padding <= costs.run:
            batch.append(row)
        else:
            batches.append([row])
    return batches


@given(
    lengths=lengths_of_texts,
    size=st.integers(1, 2048),
    max_padded_tokens=st.integers(1, 8192),
    # Of whole numbers, so that no rounding decides.
    costs=st.builds(Costs, run=st.integers(0, 4096), token=st.just(1), attention=st.integers(0, 4)),
)
def test_a_mixed_run_takes_rows_as_long_as_one_more_may_share_it(lengths, size, places, costs):
    slots = ExecutionSlots(parallel=1, in_flight=1, sizes=(size,), max_padded_tokens=places)
    planned = plan(lengths, slots, costs=costs, mixed=True)
    assert [batch.tolist() for batch in planned] == row_by_row(lengths, size, places, costs)
