"""A ragged batch holds the tokens of its texts, for any texts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.engine.costs import Costs
from encort.runtime.engine.planner import ExecutionSlots, plan
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.tokenizer import Tokenizer

LIMIT = 12
ragged_ids = st.lists(st.lists(st.integers(0, 1000), min_size=1, max_size=9), max_size=40)
any_texts = st.lists(st.text(max_size=40) | st.tuples(st.text(max_size=20), st.text(max_size=20)), max_size=8)


@pytest.fixture(scope="module")
def tokenize(classifier_bundle: Path) -> Tokenizer:
    return Tokenizer((classifier_bundle / "tokenizer.json").read_bytes(), max_length=LIMIT)


def batch_of(rows: list[list[int]]) -> TokenBatch:
    """Return a batch of these rows. Type ids are the negated ids, so that a mix-up shows."""
    ids = np.array([token for row in rows for token in row], np.int64)
    lengths = [len(row) for row in rows]
    return TokenBatch(
        ids=ids, type_ids=-ids, cu_seqlens=np.cumsum([0, *lengths]), truncated=np.zeros(len(rows), np.bool_)
    )


@given(ragged_ids)
def test_lengths_are_the_lengths_of_the_rows(rows: list[list[int]]) -> None:
    assert batch_of(rows).lengths.tolist() == [len(row) for row in rows]
    assert len(batch_of(rows)) == len(rows)


@given(ragged_ids, st.integers(1, 8), st.booleans())
def test_micro_batches_hold_every_row_unchanged(rows: list[list[int]], workers: int, mixed: bool) -> None:
    batch, planned = batch_of(rows), {}
    for indices in plan(batch.lengths, ExecutionSlots.of_cores(workers), costs=Costs(), mixed=mixed):
        inputs = batch.rows(indices)
        np.testing.assert_array_equal(inputs["token_type_ids"], -inputs["input_ids"])
        for index, ids, mask in zip(indices, inputs["input_ids"], inputs["attention_mask"], strict=True):
            planned[int(index)] = ids[mask == 1].tolist()
            assert (np.diff(mask) <= 0).all(), "padding is only at the end of a row"
    assert [planned[index] for index in range(len(rows))] == rows


@given(any_texts)
def test_a_text_has_the_same_tokens_alone_and_among_others(tokenize: Tokenizer, texts: list[Text]) -> None:
    together, alone = tokenize(texts), [tokenize([text]) for text in texts]
    assert together.ids.tolist() == [token for batch in alone for token in batch.ids.tolist()]
    assert together.type_ids.tolist() == [token for batch in alone for token in batch.type_ids.tolist()]
    assert together.truncated.tolist() == [bool(batch.truncated[0]) for batch in alone]


@given(any_texts)
def test_no_text_is_longer_than_the_limit(tokenize: Tokenizer, texts: list[Text]) -> None:
    batch = tokenize(texts)
    assert all(2 <= length <= LIMIT for length in batch.lengths)
    assert batch.cu_seqlens[-1] == len(batch.ids) == len(batch.type_ids)
    assert all(length == LIMIT for length in batch.lengths[batch.truncated])


@given(any_texts)
def test_exactly_the_truncated_texts_are_longer_under_a_wider_limit(
    tokenize: Tokenizer, classifier_bundle: Path, texts: list[Text]
) -> None:
    narrow = tokenize(texts)
    wide = Tokenizer((classifier_bundle / "tokenizer.json").read_bytes(), max_length=500)(texts)
    np.testing.assert_array_equal(wide.lengths > LIMIT, narrow.truncated)
