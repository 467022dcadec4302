"""Whatever the lengths, a plan loses no text, pads nothing and keeps every worker busy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.costs import Costs
from encort.runtime.planner import TOKENS_PER_RUN, plan_equal_length, seconds

lengths_of_texts = st.lists(st.integers(1, 2 * TOKENS_PER_RUN) | st.integers(1, 8), max_size=200).map(
    lambda lengths: np.array(lengths, np.int64)
)
workers_of_a_machine = st.integers(1, 64)
costs_of_a_model = st.builds(Costs, run=st.floats(0, 0.1), token=st.floats(1e-6, 1e-3), pair=st.floats(0, 1e-6))


@given(lengths_of_texts, workers_of_a_machine)
def test_every_text_is_planned_exactly_once(lengths, workers):
    planned = [index for batch in plan_equal_length(lengths, workers=workers) for index in batch.tolist()]
    assert sorted(planned) == list(range(len(lengths)))


@given(lengths_of_texts, workers_of_a_machine)
def test_a_micro_batch_holds_texts_of_one_length(lengths, workers):
    assert all(len(set(lengths[batch].tolist())) == 1 for batch in plan_equal_length(lengths, workers=workers))


@given(lengths_of_texts, workers_of_a_machine)
def test_only_a_text_alone_may_pass_the_budget(lengths, workers):
    for batch in plan_equal_length(lengths, workers=workers):
        assert len(batch) == 1 or lengths[batch].sum() <= TOKENS_PER_RUN


@given(lengths_of_texts, workers_of_a_machine)
def test_the_longest_texts_come_first(lengths, workers):
    planned = [int(lengths[batch[0]]) for batch in plan_equal_length(lengths, workers=workers)]
    assert planned == sorted(planned, reverse=True)


@given(lengths_of_texts, workers_of_a_machine, costs_of_a_model)
def test_no_plan_is_slower_than_one_by_one(lengths, workers, costs):
    plan = plan_equal_length(lengths, workers=workers, costs=costs)
    one_by_one = np.argsort(-lengths, kind="stable")[:, None]
    found, limit = (seconds(every, lengths, workers=workers, costs=costs) for every in (plan, one_by_one))
    assert found <= limit * (1 + 1e-9)


@given(st.integers(1, 64), st.integers(1, TOKENS_PER_RUN), workers_of_a_machine, costs_of_a_model)
def test_micro_batches_of_one_length_are_near_equal(texts, length, workers, costs):
    sizes = [len(batch) for batch in plan_equal_length(np.full(texts, length), workers=workers, costs=costs)]
    assert max(sizes) - min(sizes) <= 1


@given(lengths_of_texts)
def test_more_workers_are_never_done_later(lengths):
    plans = {workers: plan_equal_length(lengths, workers=workers) for workers in (1, 2, 4, 8, 16)}
    times = [seconds(plan, lengths, workers=workers, costs=Costs()) for workers, plan in plans.items()]
    assert times == sorted(times, reverse=True)


def test_runs_that_cost_much_by_themselves_are_few():
    lengths = np.full(32, 8)
    dear, cheap = (len(plan_equal_length(lengths, workers=1, costs=Costs(run=run))) for run in (1.0, 0.0))
    assert dear == 1 <= cheap
