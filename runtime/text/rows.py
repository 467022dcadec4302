"""Rows of a batch, from the tokens of its inputs: whole, cut at the limit, or in windows."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from encort.runtime.common.arrays import BoolArray, Int64Array
from encort.runtime.common.errors import InputTooLongError
from encort.runtime.text.token_batch import Text, TokenBatch, TokenOffsets, Windows
from encort.runtime.text.tokens import Tokens
from encort.runtime.text.windows import Overflow, cut_longest, cut_windows


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One row of a batch: all tokens of an input, or some of them.

    Attributes:
        text: Number of the text.
        tokens: Tokens of the input, or an encoding of the tokenizers library.
        kept: Positions of the tokens in this row; None for all.
        own: Which of these tokens count in this row; None for all.
        is_truncated: Whether tokens were cut off.
    """

    text: int
    tokens: Any
    kept: Int64Array | None = None
    own: BoolArray | None = None
    is_truncated: bool = False

    def __len__(self) -> int:
        return len(self.tokens) if self.kept is None else len(self.kept)

    def values(self, name: str) -> Sequence[int] | Int64Array:
        """Return one value per token, by its name in `Tokens`."""
        if not isinstance(self.tokens, Tokens):
            return _VALUES[name](self.tokens)
        values: Int64Array = getattr(self.tokens, name)
        return values if self.kept is None else values[self.kept]


def cut_rows(
    index: int,
    tokens: Any,
    *,
    limit: int,
    overflow: Overflow,
    stride: int | None,
    cuts_beginning: bool,
    number: int,
    prompt_length: int,
) -> Iterator[TokenRow]:
    """Yield the rows that the model reads of one input: one row, or several windows.

    Args:
        index: Number of the input in the batch.
        tokens: `Tokens`, or an encoding of the tokenizers library.
        limit: Most tokens of a row.
        overflow: See `Tokenizer`.
        stride: See `Tokenizer`.
        cuts_beginning: See `cut_longest`.
        number: Number of the input for messages.
        prompt_length: See `cut_windows`.

    Raises:
        InputTooLongError: See `Tokenizer`.
    """
    if len(tokens) <= limit:
        yield TokenRow(index, tokens)
        return
    if overflow == "error":
        raise InputTooLongError(
            f'text {number} has more than {limit} tokens; shorten it, or use overflow="truncate" or "window"'
        )
    arrays = tokens if isinstance(tokens, Tokens) else Tokens.of(tokens)
    if overflow in ("truncate", "truncate_left"):
        kept = cut_longest(arrays.sequences, limit=limit, cuts_beginning=cuts_beginning)
        yield TokenRow(index, arrays, kept, is_truncated=True)
        return
    try:
        windows = cut_windows(arrays.sequences, limit=limit, stride=stride, prompt_length=prompt_length)
    except InputTooLongError as error:
        raise InputTooLongError(f"text {number}: {error}") from None
    for window, own in windows:
        yield TokenRow(index, arrays, window, own)


def join_rows(
    rows: Sequence[TokenRow], texts: Sequence[Text], *, return_offsets: bool, prompt: str, prompt_length: int | None
) -> TokenBatch:
    """Return rows, in the order of their texts, as one batch; see `Tokenizer` and `TokenBatch`."""
    return TokenBatch(
        ids=_flat(row.values("ids") for row in rows),
        type_ids=_flat(row.values("type_ids") for row in rows),
        cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
        truncated=np.fromiter((row.is_truncated for row in rows), np.bool_, len(rows)),
        texts=tuple(texts),  # the caller may change a list
        offsets=_offsets(rows) if return_offsets else None,
        windows=_windows(rows) if len(rows) > len(texts) else None,
        prompt=prompt,
        prompt_length=prompt_length,
    )


def _offsets(rows: Sequence[TokenRow]) -> TokenOffsets:
    names = ("starts", "ends", "words", "sequences")
    return TokenOffsets(**{name: _flat(row.values(name) for row in rows) for name in names})


def _windows(rows: Sequence[TokenRow]) -> Windows:
    own = [np.ones(len(row), np.bool_) if row.own is None else row.own for row in rows]
    return Windows(texts=np.array([row.text for row in rows]), own=np.concatenate(own))


def _flat(rows: Iterable[Sequence[int] | Int64Array]) -> Int64Array:
    parts = list(rows)
    if any(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([np.asarray(part, np.int64) for part in parts])
    return np.fromiter(chain.from_iterable(parts), np.int64)


_VALUES: Mapping[str, Callable[[Any], list[int]]] = {
    "ids": lambda encoding: encoding.ids,
    "type_ids": lambda encoding: encoding.type_ids,
    "starts": lambda encoding: [start for start, _ in encoding.offsets],
    "ends": lambda encoding: [end for _, end in encoding.offsets],
    "words": lambda encoding: [-1 if word is None else word for word in encoding.word_ids],
    "sequences": lambda encoding: [-1 if part is None else part for part in encoding.sequence_ids],
}
"""Values of an encoding by their name in `Tokens`. Lists are faster than arrays for short texts."""
