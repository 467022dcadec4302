"""`TokenBatch` holds ragged texts flat and gives texts of one length as a matrix."""

import dataclasses

import numpy as np
import pytest

from encort.runtime.tokens import TokenBatch


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
    ids, type_ids = batch.rows(np.array([2, 0]))
    assert ids.tolist() == [[2, 8, 3], [2, 7, 3]]
    assert type_ids.tolist() == [[0, 1, 1], [0, 0, 0]]


def test_rows_keeps_int64(batch):
    assert [array.dtype for array in batch.rows(np.array([1]))] == [np.int64, np.int64]


def test_a_batch_is_frozen(batch):
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.ids = np.array([1])
