"""Token batches of the GPU race: the repeated workload, calls of one shape, and parts of a batch."""

import numpy as np

from encort.runtime.text.token_batch import TokenBatch


def of_shape(batch: TokenBatch, texts: int, tokens: int) -> TokenBatch:
    """Return `texts` texts of `tokens` tokens each, with token ids of the batch."""
    ids = np.resize(batch.ids, texts * tokens)
    return TokenBatch(
        ids=ids,
        type_ids=0 * ids,
        cu_seqlens=np.arange(0, texts * tokens + 1, tokens),
        truncated=np.zeros(texts, np.bool_),
    )


def repeated(batch: TokenBatch, times: int) -> TokenBatch:
    """Return a batch that has all texts this many times."""
    lengths = np.tile(batch.lengths, times)
    return TokenBatch(
        ids=np.tile(batch.ids, times),
        type_ids=np.tile(batch.type_ids, times),
        cu_seqlens=np.concatenate([[0], np.cumsum(lengths)]),
        truncated=np.tile(batch.truncated, times),
    )


def part(batch: TokenBatch, start: int, stop: int) -> TokenBatch:
    """Return the texts from `start` up to, but without, `stop`."""
    first_token, end_token = batch.cu_seqlens[start], batch.cu_seqlens[stop]
    return TokenBatch(
        ids=batch.ids[first_token:end_token],
        type_ids=batch.type_ids[first_token:end_token],
        cu_seqlens=batch.cu_seqlens[start : stop + 1] - first_token,
        truncated=batch.truncated[start:stop],
    )
