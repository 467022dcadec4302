"""Inputs over the limit: truncated, or read in overlapping windows whose results are merged."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np

from encort.runtime.common.arrays import BoolArray, FloatArray, Int64Array
from encort.runtime.common.errors import InputTooLongError
from encort.runtime.text.token_batch import TokenBatch

Overflow = Literal["truncate", "truncate_left", "error", "window"]
"""Policy for an input over the limit: cut it, cut its beginning, refuse it, or read it whole in overlapping windows."""


def cut_longest(sequences: Int64Array, *, limit: int, cuts_beginning: bool = False) -> Int64Array:
    """Return the positions of the tokens that are kept of an input over the limit.

    Of a pair, the longer text is cut first, then both texts to equal lengths.

    Args:
        sequences: `(tokens,)` int64: 0 for the first text of a pair, 1 for the second, -1 for special tokens.
        limit: Most tokens that are kept.
        cuts_beginning: Whether the beginning of each text is cut, and not its end.
    """
    first, second = np.flatnonzero(sequences == 0), np.flatnonzero(sequences == 1)
    room = max(0, limit - (len(sequences) - len(first) - len(second)))
    shorter = min(len(first), len(second), room // 2)
    kept = (shorter, room - shorter) if len(first) <= len(second) else (room - shorter, shorter)
    parts = [
        part[max(0, len(part) - count) :] if cuts_beginning else part[:count]
        for part, count in zip((first, second), kept, strict=True)
    ]
    return np.sort(np.concatenate([*parts, np.flatnonzero(sequences == -1)]))


def cut_windows(
    sequences: Int64Array, *, limit: int, stride: int | None, prompt_length: int = 0
) -> list[tuple[Int64Array, BoolArray]]:
    """Return windows over a text, or over the second text of a pair. All other tokens are in every window.

    Args:
        sequences: See `cut_longest`.
        limit: Most tokens of a window.
        stride: Tokens that neighbouring windows share; None: a quarter of the windowed part, at most 128.
        prompt_length: Number of tokens at the beginning that are special or of a prompt, which every window has.

    Returns:
        For every window, the positions of its tokens, and which of them count in it. Of the shared tokens, the first
        half counts in the earlier window and the second half in the later one, where they have more neighbours.

    Raises:
        InputTooLongError: The other tokens leave no room for such windows.
    """
    body = np.flatnonzero(sequences == sequences.max())
    body = body[body >= prompt_length]
    room = max(0, limit - len(sequences) + len(body))
    shared = min(128, room // 4) if stride is None else stride
    if room <= shared:
        raise InputTooLongError(
            f"{room} of {limit} tokens are left for the part that is read in windows, which is too little if they "
            f"share {shared}: shorten the first text of the pair or the prompt, or lower stride"
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
    """Merge the rows of windows into one row per text. A batch without windows stays as it is.

    The value of a token comes from the window where the token counts. The value of a text is the mean over its windows,
    weighted by the tokens that count there.

    Args:
        batch: The batch that was run.
        arrays: Outputs of the graph, each `(rows, ...)`, or `(tokens, ...)` with `tokenwise`, float32.
        tokenwise: Whether the outputs have one row per token.
        normalize: Whether to scale the means to length 1.

    Returns:
        The batch with one row per text, and its outputs.
    """
    windows = batch.windows
    if windows is None:
        return batch, list(arrays)
    lengths = batch.tokens_per_text
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
    own_tokens = np.add.reduceat(windows.own, batch.cu_seqlens[:-1], dtype=np.int64)
    weights = (own_tokens / lengths[windows.texts]).astype(np.float32)
    first_rows = np.flatnonzero(np.diff(windows.texts, prepend=-1))
    means = [np.add.reduceat(array * weights[:, None], first_rows, axis=0) for array in arrays]
    if normalize:
        means = [mean / np.linalg.norm(mean, axis=1, keepdims=True) for mean in means]
    return whole, means
