"""Whatever the lengths, a plan loses no text, pads nothing and keeps every worker busy."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.planner import TOKENS_PER_RUN, plan_equal_length

lengths_of_texts = st.lists(st.integers(1, 2 * TOKENS_PER_RUN) | st.integers(1, 8), max_size=200).map(
    lambda lengths: np.array(lengths, np.int64)
)
workers_of_a_machine = st.integers(1, 64)


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
def test_only_a_text_alone_may_pass_one_workers_share(lengths, workers):
    for batch in plan_equal_length(lengths, workers=workers):
        assert len(batch) == 1 or lengths[batch].sum() <= math.ceil(lengths.sum() / workers)


@given(lengths_of_texts, workers_of_a_machine)
def test_the_longest_texts_come_first(lengths, workers):
    planned = [int(lengths[batch[0]]) for batch in plan_equal_length(lengths, workers=workers)]
    assert planned == sorted(planned, reverse=True)


@given(st.integers(1, 64), st.integers(1, TOKENS_PER_RUN), workers_of_a_machine)
def test_texts_of_one_length_take_the_fewest_runs_of_near_equal_size(texts, length, workers):
    lengths = np.full(texts, length)
    sizes = [len(batch) for batch in plan_equal_length(lengths, workers=workers)]
    most = max(1, min(TOKENS_PER_RUN, math.ceil(texts * length / workers)) // length)
    assert len(sizes) == math.ceil(texts / most)
    assert max(sizes) - min(sizes) <= 1


@given(lengths_of_texts)
def test_more_workers_never_mean_fewer_runs(lengths):
    runs = [len(plan_equal_length(lengths, workers=workers)) for workers in (1, 2, 4, 8, 16)]
    assert runs == sorted(runs)
