"""The tokens that a `TokenPrompt` adds to a batch, and those that give no vector."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from encort.runtime.common.arrays import BoolArray, Int64Array
from encort.runtime.text.token_batch import TokenBatch, TokenOffsets
from encort.runtime.text.token_prompt import TokenPrompt


def add_tokens(prompt: TokenPrompt, batch: TokenBatch, limit: int) -> TokenBatch:
    """Return a batch, tokenized with `prompt.text_length`, with the marker and the expansion.

    Args:
        prompt: Tokens to add.
        batch: Tokens of the texts, one row per text.
        limit: Most tokens that the model reads.
    """
    if prompt.marker is not None:
        batch = _insert(batch, np.ones(len(batch), np.int64), prompt.marker, offset=1)
    if prompt.expansion is not None:
        missing = min(prompt.max_length, limit) - batch.lengths
        expanded = _insert(batch, missing, prompt.expansion, offset=None)
        batch = expanded if prompt.attends_expansion else replace(expanded, attended=_is_text(expanded, missing))
    return replace(batch, prompt=prompt)


def kept_tokens(batch: TokenBatch, skipped: list[int]) -> BoolArray:
    """Return which tokens of a batch give vectors, `(tokens,)` bool.

    Args:
        batch: Tokens, as they were run.
        skipped: Token ids that never give a vector; the prompt of the batch may name others.
    """
    ids = [*skipped, *(batch.prompt.skipped if isinstance(batch.prompt, TokenPrompt) else [])]
    return ~np.isin(batch.ids, ids)


def _insert(batch: TokenBatch, counts: Int64Array, token: int, *, offset: int | None) -> TokenBatch:
    """Return a batch with copies of a token in each row, `offset` tokens behind its beginning; None: at its end."""
    ends = batch.cu_seqlens[1:]
    places = np.repeat(ends if offset is None else np.minimum(batch.cu_seqlens[:-1] + offset, ends), counts)
    no_place: Mapping[str, int] = {"starts": 0, "ends": 0, "words": -1, "sequences": -1}
    offsets = batch.offsets
    return replace(
        batch,
        ids=np.insert(batch.ids, places, token),
        type_ids=np.insert(batch.type_ids, places, 0),
        cu_seqlens=batch.cu_seqlens + np.cumsum([0, *counts], dtype=np.int64),
        offsets=None
        if offsets is None
        else TokenOffsets(
            **{name: np.insert(getattr(offsets, name), places, value) for name, value in no_place.items()}
        ),
    )


def _is_text(batch: TokenBatch, expanded: Int64Array) -> BoolArray:
    """Return which tokens are not of the expansion, given the number of these in each row, `(tokens,)` bool."""
    numbers = np.arange(len(batch.ids)) - np.repeat(batch.cu_seqlens[1:] - expanded, batch.lengths)
    return numbers < 0
