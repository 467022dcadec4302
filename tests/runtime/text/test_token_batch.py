"""`TokenBatch` holds ragged texts flat and gives texts of one length as a matrix."""

import dataclasses

import numpy as np
import pytest

from encort.runtime.text.token_batch import TokenBatch, TokenOffsets, Windows, concatenate_batches


@pytest.fixture
def batch():
    return TokenBatch(
        ids=np.array([2, 7, 3, 2, 3, 2, 8, 3]),
        type_ids=np.array([0, 0, 0, 0, 1, 0, 1, 1]),
        cu_seqlens=np.array([0, 3, 5, 8]),
        truncated=np.array([False, False, True]),
    )


def test_its_length_is_the_number_of_texts(batch):
    assert len(batch) == 3


def test_lengths_are_counted_in_tokens(batch):
    assert batch.lengths.tolist() == [3, 2, 3]


def test_rows_gives_texts_of_one_length_in_the_order_asked(batch):
    assert {name: rows.tolist() for name, rows in batch.rows(np.array([2, 0])).items()} == {
        "input_ids": [[2, 8, 3], [2, 7, 3]],
        "token_type_ids": [[0, 1, 1], [0, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 1]],
    }


def test_rows_of_exchanged_pairs_stand_beside(batch):
    exchanged = dataclasses.replace(batch, ids=batch.ids + 10, type_ids=1 - batch.type_ids)
    rows = dataclasses.replace(batch, reversed=exchanged).rows(np.array([2]))
    assert {name: rows[name].tolist() for name in rows.keys() - batch.rows(np.array([2])).keys()} == {
        "reversed_input_ids": [[12, 18, 13]],
        "reversed_token_type_ids": [[1, 0, 0]],
    }


def test_tokens_are_where_they_lie_in_the_flat_arrays(batch):
    positions, counts = batch.tokens(np.array([2, 0]))
    assert positions.tolist() == [[5, 6, 7], [0, 1, 2]]
    assert counts.all()


def test_past_its_end_a_shorter_row_repeats_its_first_token_and_does_not_count(batch):
    rows = batch.rows(np.array([1, 2]))
    assert rows["input_ids"].tolist() == [[2, 3, 2], [2, 8, 3]]
    assert rows["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_rows_keeps_int64(batch):
    assert {array.dtype for array in batch.rows(np.array([1])).values()} == {np.dtype(np.int64)}


def test_a_batch_is_frozen(batch):
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.ids = np.array([1])


def places_of(batch):
    numbers = np.arange(len(batch.ids))
    return TokenOffsets(starts=numbers, ends=numbers + 1, words=numbers + 2, sequences=numbers + 3)


def test_joined_batches_lie_one_after_the_other(batch):
    other = dataclasses.replace(batch, ids=batch.ids + 10, truncated=~batch.truncated)
    together = concatenate_batches([batch, other], ["a", "b", "c"] * 2)
    assert together.cu_seqlens.tolist() == [0, 3, 5, 8, 11, 13, 16]
    for name in ("ids", "type_ids", "truncated"):
        assert getattr(together, name).tolist() == getattr(batch, name).tolist() + getattr(other, name).tolist()
    assert together.texts == ["a", "b", "c"] * 2
    assert (together.offsets, together.windows, together.reversed) == (None, None, None)


def test_joined_batches_keep_places_and_exchanged_pairs(batch):
    exchanged = dataclasses.replace(batch, ids=batch.ids + 10, texts=("x", "y", "z"))
    full = dataclasses.replace(batch, offsets=places_of(batch), reversed=exchanged)
    together = concatenate_batches([full, full], ["a", "b", "c"] * 2)
    for name, values in vars(full.offsets).items():
        assert getattr(together.offsets, name).tolist() == values.tolist() * 2
    assert together.reversed.ids.tolist() == exchanged.ids.tolist() * 2
    assert list(together.reversed.texts) == ["x", "y", "z"] * 2


def test_joined_windows_count_the_texts_of_the_batches_before(batch):
    own = np.array([True, True, False, False, True, True, True, True])
    windows = dataclasses.replace(batch, windows=Windows(texts=np.array([0, 0, 1]), own=own))
    together = concatenate_batches([windows, batch, windows], list("abcdefg"))
    assert together.windows.texts.tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6]
    assert together.windows.own.tolist() == [*own.tolist(), *[True] * 8, *own.tolist()]
    assert together.tokens_per_text.tolist() == [3, 3, 3, 2, 3, 3, 3]
