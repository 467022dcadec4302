"""`TokenBatch` holds ragged texts in flat arrays and pads rows when they are run."""

import dataclasses

import numpy as np
import pytest

from encort.runtime.text.token_batch import TokenBatch, TokenOffsets, Windows, concatenate_batches, pad_rows


@pytest.fixture
def batch() -> TokenBatch:
    return TokenBatch(
        ids=np.array([2, 7, 3, 2, 3, 2, 8, 3]),
        type_ids=np.array([0, 0, 0, 0, 1, 0, 1, 1]),
        cu_seqlens=np.array([0, 3, 5, 8]),
        truncated=np.array([False, False, True]),
    )


def test_the_length_of_a_batch_is_the_number_of_rows(batch: TokenBatch) -> None:
    assert len(batch) == 3


def test_lengths_are_counted_in_tokens(batch: TokenBatch) -> None:
    assert batch.lengths.tolist() == [3, 2, 3]


def test_rows_come_in_the_order_of_the_indices(batch: TokenBatch) -> None:
    assert {name: rows.tolist() for name, rows in batch.rows(np.array([2, 0])).items()} == {
        "input_ids": [[2, 8, 3], [2, 7, 3]],
        "token_type_ids": [[0, 1, 1], [0, 0, 0]],
        "attention_mask": [[1, 1, 1], [1, 1, 1]],
    }


def test_rows_include_the_swapped_pairs(batch: TokenBatch) -> None:
    swapped = dataclasses.replace(batch, ids=batch.ids + 10, type_ids=1 - batch.type_ids)
    rows = dataclasses.replace(batch, reversed=swapped).rows(np.array([2]))
    assert {name: rows[name].tolist() for name in rows.keys() - batch.rows(np.array([2])).keys()} == {
        "reversed_input_ids": [[12, 18, 13]],
        "reversed_token_type_ids": [[1, 0, 0]],
    }


def test_tokens_gives_positions_in_the_flat_arrays(batch: TokenBatch) -> None:
    positions, is_token = batch.tokens(np.array([2, 0]))
    assert positions.tolist() == [[5, 6, 7], [0, 1, 2]]
    assert is_token.all()


def test_a_shorter_row_is_padded_with_its_first_token_and_a_zero_mask(batch: TokenBatch) -> None:
    rows = batch.rows(np.array([1, 2]))
    assert rows["input_ids"].tolist() == [[2, 3, 2], [2, 8, 3]]
    assert rows["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_rows_are_int64(batch: TokenBatch) -> None:
    assert {array.dtype for array in batch.rows(np.array([1])).values()} == {np.dtype(np.int64)}


def test_a_batch_is_frozen(batch: TokenBatch) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        batch.ids = np.array([1])


def offsets_of(batch: TokenBatch) -> TokenOffsets:
    numbers = np.arange(len(batch.ids))
    return TokenOffsets(starts=numbers, ends=numbers + 1, words=numbers + 2, sequences=numbers + 3)


def test_concatenated_batches_follow_each_other(batch: TokenBatch) -> None:
    other = dataclasses.replace(batch, ids=batch.ids + 10, truncated=~batch.truncated)
    together = concatenate_batches([batch, other])
    assert together.cu_seqlens.tolist() == [0, 3, 5, 8, 11, 13, 16]
    for name in ("ids", "type_ids", "truncated"):
        assert getattr(together, name).tolist() == getattr(batch, name).tolist() + getattr(other, name).tolist()
    assert together.texts == (*batch.texts, *other.texts)
    assert (together.offsets, together.windows, together.reversed) == (None, None, None)


def test_concatenated_batches_keep_offsets_and_swapped_pairs(batch: TokenBatch) -> None:
    swapped = dataclasses.replace(batch, ids=batch.ids + 10, texts=("x", "y", "z"))
    full = dataclasses.replace(batch, offsets=offsets_of(batch), reversed=swapped)
    together = concatenate_batches([full, full])
    assert together.offsets is not None
    assert together.reversed is not None
    for name, values in vars(full.offsets).items():
        assert getattr(together.offsets, name).tolist() == values.tolist() * 2
    assert together.reversed.ids.tolist() == swapped.ids.tolist() * 2
    assert list(together.reversed.texts) == ["x", "y", "z"] * 2


def test_concatenated_windows_number_the_texts_of_all_batches(batch: TokenBatch) -> None:
    own = np.array([True, True, False, False, True, True, True, True])
    windows = dataclasses.replace(batch, windows=Windows(texts=np.array([0, 0, 1]), own=own))
    together = concatenate_batches([windows, batch, windows])
    assert together.windows is not None
    assert together.windows.texts.tolist() == [0, 0, 1, 2, 3, 4, 5, 5, 6]
    assert together.windows.own.tolist() == [*own.tolist(), *[True] * 8, *own.tolist()]
    assert together.tokens_per_text.tolist() == [3, 3, 3, 2, 3, 3, 3]


def test_padded_rows_have_zeros_behind_their_tokens(batch: TokenBatch) -> None:
    padded = pad_rows([batch.rows(np.array([1])), batch.rows(np.array([2]))])
    assert padded["input_ids"].tolist() == [[2, 3, 0], [2, 8, 3]]
    assert padded["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert pad_rows([batch.rows(np.array([1]))])["input_ids"].tolist() == [[2, 3]]
