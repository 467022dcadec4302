"""Inputs over the limit: cut, or as overlapping windows of which one result is made."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from encort.runtime.common.arrays import BoolArray, FloatArray, Int64Array
from encort.runtime.common.errors import InputTooLongError
from encort.runtime.text.token_batch import TokenBatch

Overflow = Literal["truncate", "error", "window"]
"""What happens to an input that is longer than the limit."""


def cut_longest(sequences: Int64Array, *, limit: int) -> Int64Array:
    """Tokens that are kept of an input over the limit: the longer text of a pair is cut first, then both to halves.

    Args:
        sequences: `(tokens,)` int64, 0 or 1 for the first and second text of a pair, -1 for special tokens.
    """
    first, second = np.flatnonzero(sequences == 0), np.flatnonzero(sequences == 1)
    room = max(0, limit - (len(sequences) - len(first) - len(second)))
    shorter = min(len(first), len(second), room // 2)
    kept = (shorter, room - shorter) if len(first) <= len(second) else (room - shorter, shorter)
    return np.sort(np.concatenate([first[: kept[0]], second[: kept[1]], np.flatnonzero(sequences == -1)]))


def cut_windows(sequences: Int64Array, *, limit: int, stride: int | None) -> list[tuple[Int64Array, BoolArray]]:
    """Windows over a text, or over the second text of a pair; what stands around it is in each of them.

    Args:
        sequences: As for `cut_longest`.
        limit: Most tokens of a window.
        stride: Tokens that neighbouring windows share; None takes a quarter of what is cut, 128 at most.

    Returns:
        For every window, which tokens it holds, and which of them count in it: of the shared ones the first half in
        the window before, the second half in the one after, where they have more neighbours.

    Raises:
        InputTooLongError: Beside what stands around there is no room for such windows.
    """
    body = np.flatnonzero(sequences == sequences.max())
    room = max(0, limit - len(sequences) + len(body))
    shared = min(128, room // 4) if stride is None else stride
    if room <= shared:
        raise InputTooLongError(
            f"{room} of {limit} tokens are left for the part that is read in windows, which is too little if they "
            f"share {shared}: shorten the first text of the pair, or lower stride"
        )
    before, after = np.arange(body[0]), np.arange(body[-1] + 1, len(sequences))
    starts = range(0, max(1, len(body) - shared), room - shared)
    kept = [np.concatenate([before, body[start : start + room], after]) for start in starts]
    own = [np.ones(len(tokens), np.bool_) for tokens in kept]
    for left, right in pairwise(own):
        left[len(left) - len(after) - (shared - shared // 2) :] = False
        right[: len(before) + shared // 2] = False
    return list(zip(kept, own, strict=True))


def merge_windows(
    batch: TokenBatch, arrays: Sequence[FloatArray], *, tokenwise: bool, normalize: bool = False
) -> tuple[TokenBatch, list[FloatArray]]:
    """A row a text out of rows of windows; a batch without windows as it is.

    Args:
        arrays: Outputs of a graph, each `(rows, ...)` or with `tokenwise` `(tokens, ...)` float32. The value of a
            token is taken from the window where it counts; that of a text is the mean over its windows, weighted by
            the tokens that count there.
        normalize: Give the means the length 1.
    """
    windows = batch.windows
    if windows is None:
        return batch, list(arrays)
    lengths = batch.tokens_of_texts
    whole = TokenBatch(
        ids=batch.ids[windows.own],
        type_ids=batch.type_ids[windows.own],
        cu_seqlens=np.cumsum([0, *lengths]),
        truncated=batch.truncated_texts,
        texts=batch.texts,
        offsets=None if batch.offsets is None else batch.offsets[windows.own],
    )
    if tokenwise:
        return whole, [array[windows.own] for array in arrays]
    counted = np.add.reduceat(windows.own, batch.cu_seqlens[:-1], dtype=np.int64)
    weights = (counted / lengths[windows.texts]).astype(np.float32)
    firsts = np.flatnonzero(np.diff(windows.texts, prepend=-1))
    means = [np.add.reduceat(array * weights[:, None], firsts, axis=0) for array in arrays]
    if normalize:
        means = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
    return whole, means
