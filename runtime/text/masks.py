"""Mask tokens, which stand for missing words, and the rows that predict them."""

from dataclasses import replace

import numpy as np

from encort.runtime.common.arrays import Int64Array
from encort.runtime.text.token_batch import TokenBatch


def masked_tokens(batch: TokenBatch, mask: int) -> Int64Array:
    """Return the positions of the mask tokens in the flat arrays, ascending, `(masks,)` int64.

    A mask token that windows share is counted once.

    Args:
        batch: Rows of token ids.
        mask: Id of the mask token.
    """
    is_mask = batch.ids == mask
    return np.flatnonzero(is_mask if batch.windows is None else is_mask & batch.windows.own)


def rows_of(batch: TokenBatch, tokens: Int64Array) -> Int64Array:
    """Return the row of each token, by its position in the flat arrays."""
    rows: Int64Array = np.searchsorted(batch.cu_seqlens, tokens, side="right") - 1
    return rows


def one_row_per_mask(batch: TokenBatch, mask: int) -> TokenBatch:
    """Return a batch with one row per mask token, in their order: the row that it is in, with its position.

    A graph then computes the logits of the vocabulary for one token of each row, and not for all.
    """
    tokens = masked_tokens(batch, mask)
    rows = rows_of(batch, tokens)
    lengths = batch.lengths[rows]
    bounds = np.cumsum([0, *lengths], dtype=np.int64)
    flat = np.arange(bounds[-1]) + np.repeat(batch.cu_seqlens[rows] - bounds[:-1], lengths)
    return TokenBatch(
        ids=batch.ids[flat],
        type_ids=batch.type_ids[flat],
        cu_seqlens=bounds,
        truncated=batch.truncated[rows],
        prompt_length=batch.prompt_length,
        mask_positions=tokens - batch.cu_seqlens[rows],
    )


def with_any_positions(batch: TokenBatch) -> TokenBatch:
    """Return a batch for a graph that predicts a word in each row, where no word is asked for: the one in the middle.

    The positions differ with the length, so that the verification of a graph sees different ones.
    """
    return replace(batch, mask_positions=batch.lengths // 2)
