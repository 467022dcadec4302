"""From texts to token ids, with the bundle's own `tokenizer.json`."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import tokenizers

from encort.runtime.common.arrays import BoolArray, Int64Array
from encort.runtime.common.checks import check_choice, check_whole
from encort.runtime.common.errors import BundleError, InputError, InputTooLongError, InputTypeError
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds, TokenOffsets, Windows
from encort.runtime.text.validation import check_texts, checked_token_ids, is_token_ids
from encort.runtime.text.windows import Overflow, cut_longest, cut_windows

LIMIT = 2**20
"""More tokens than any encoder reads: a larger `max_length` in a manifest is a mistake."""

_CHARACTERS = 16
"""Characters per token that are read first of a long text. Prose has four or five characters per token."""
_PAIR = 2**16
"""Least number of characters that are read of each text of a pair, to know which text is longer."""
_UNSTABLE_WORDS = 16
"""Words at the end of a cut text whose tokens may differ in the whole text."""


class Tokenizer:
    """The tokenizer of a bundle. Any number of threads may call it."""

    def __init__(self, file: Path, *, max_length: int) -> None:
        """Read a tokenizer.

        Args:
            file: `tokenizer.json` of the tokenizers library.
            max_length: Most tokens of an input, special tokens included.

        Raises:
            BundleError: The file is not a tokenizer, or `max_length` makes no sense for it.
        """
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"{file} is not a tokenizer ({error}); export the bundle again") from error
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if not special < max_length < LIMIT:
            raise BundleError(f"max_length {max_length} is not between {special + 1} and {LIMIT} tokens")
        self._max_length = max_length
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def __call__(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        first: int = 0,
        return_offsets: bool = False,
        reverse: bool = False,
        all_cores: bool = False,
    ) -> TokenBatch:
        """Tokenize texts or pairs of texts, special tokens included. Token ids are taken as they are.

        Args:
            texts: Each a str, or a tuple of two str for a pair; or token ids for all of them.
            overflow: `"truncate"` cuts at the limit, of a pair the longer text first, and sets `truncated`. `"error"`
                refuses the text. `"window"` makes overlapping windows over a text, or over the second text of a pair.
            stride: Tokens that neighbouring windows share; None: a quarter of a window, at most 128.
            first: Number of the first text, for messages about a part of many.
            return_offsets: Whether to return the offsets of the tokens in their texts.
            reverse: Whether to tokenize every pair with its texts swapped, too.
            all_cores: Whether the tokenizers library may use all cores of the process, which it does for many texts at
                a time. Otherwise it gets one text at a time.

        Raises:
            InputTypeError: `texts` is not a sequence of str or pairs of str, or of pairs with `reverse`.
            InputError: A text holds an unpaired surrogate, so it is not Unicode; an id is not in the vocabulary.
            InputTooLongError: A text is longer than the limit, with `overflow="error"`.
        """
        if is_token_ids(texts) and reverse:
            raise InputTypeError("this model reads pairs in either order; give pairs of texts, not token ids")
        if is_token_ids(texts):
            return self._from_token_ids(texts, first)
        texts = cast("Sequence[Text]", texts)
        check_texts(texts, first=first)
        check_choice("overflow", overflow, get_args(Overflow))
        if reverse and overflow == "window":
            raise InputError('this model reads pairs in either order, so it cannot cut windows; use "truncate"')
        if stride is not None:
            check_whole("stride", stride, least=0)
        encode = self._tokenizer.encode_batch if return_offsets else self._tokenizer.encode_batch_fast
        prefixes = [text if overflow == "window" else self._beginning(text) for text in texts]
        encodings: list[Any] = encode(prefixes) if all_cores else [encode([text])[0] for text in prefixes]
        rows = [
            row
            for index, encoding in enumerate(encodings)
            for row in self._rows(index, encoding, overflow=overflow, stride=stride, number=first + index)
        ]
        return TokenBatch(
            ids=_flat(row.pick(row.encoding.ids) for row in rows),
            type_ids=_flat(row.pick(row.encoding.type_ids) for row in rows),
            cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
            truncated=np.fromiter((row.is_truncated for row in rows), np.bool_, len(rows)),
            texts=tuple(texts),  # the caller may change a list
            offsets=_offsets(rows) if return_offsets else None,
            windows=_windows(rows) if len(rows) > len(encodings) else None,
            reversed=self(_swapped(texts, first), all_cores=all_cores) if reverse else None,
        )

    def _beginning(self, text: Text) -> Text:
        """Return as much of a text as can matter: of ten million characters, a model reads a few thousand."""
        size = _CHARACTERS * self._max_length
        if isinstance(text, str):
            return self._beginning_of_one(text, size)
        # Of two texts over the limit, the longer one gets the odd token.
        size = max(size, _PAIR)
        return self._beginning_of_one(text[0], size), self._beginning_of_one(text[1], size)

    def _beginning_of_one(self, text: str, size: int) -> str:
        while size < len(text):
            words = self._tokenizer.encode_batch([text[:size]], add_special_tokens=False)[0].word_ids
            if len(words) > self._max_length and words[self._max_length] + _UNSTABLE_WORDS <= words[-1]:
                return text[:size]
            size *= 8
        return text

    def _rows(
        self, index: int, encoding: Any, *, overflow: Overflow, stride: int | None, number: int
    ) -> "Iterator[_Row]":
        """Yield the rows that the model reads of one text: one row, or several windows."""
        if len(encoding) <= self._max_length:
            yield _Row(index, encoding)
            return
        if overflow == "error":
            raise InputTooLongError(
                f"text {number} has more than {self._max_length} tokens; "
                'shorten it, or use overflow="truncate" or "window"'
            )
        sequences = _sequences(encoding)
        if overflow == "truncate":
            yield _Row(index, encoding, cut_longest(sequences, limit=self._max_length), is_truncated=True)
            return
        try:
            windows = cut_windows(sequences, limit=self._max_length, stride=stride)
        except InputTooLongError as error:
            raise InputTooLongError(f"text {number}: {error}") from None
        for kept, own in windows:
            yield _Row(index, encoding, kept, own)

    @cached_property
    def _vocabulary_size(self) -> int:
        """Size of the vocabulary: ids are from 0 to one below it."""
        return 1 + int(max(self._tokenizer.get_vocab().values()))

    def _from_token_ids(self, texts: Sequence[TokenIds], first: int) -> TokenBatch:
        rows = checked_token_ids(texts, size=self._vocabulary_size, limit=self._max_length, first=first)
        ids = _flat(rows)
        return TokenBatch(
            ids=ids,
            type_ids=np.zeros_like(ids),
            cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
            truncated=np.zeros(len(rows), np.bool_),
        )


@dataclass(frozen=True, eq=False)
class _Row:
    """One row of a batch: all tokens of an encoding, or some of them.

    Attributes:
        text: Number of the text.
        encoding: Encoding of the tokenizers library.
        kept: Positions of the tokens in this row; None for all.
        own: Which of these tokens count in this row; None for all.
        is_truncated: Whether tokens were cut off.
    """

    text: int
    encoding: Any
    kept: Int64Array | None = None
    own: BoolArray | None = None
    is_truncated: bool = False

    def __len__(self) -> int:
        return len(self.encoding) if self.kept is None else len(self.kept)

    def pick(self, values: list[int]) -> Iterable[int]:
        """Return the values of the tokens in this row."""
        return values if self.kept is None else np.array(values)[self.kept]


def _offsets(rows: Sequence[_Row]) -> TokenOffsets:
    return TokenOffsets(
        starts=_flat(row.pick([start for start, _ in row.encoding.offsets]) for row in rows),
        ends=_flat(row.pick([end for _, end in row.encoding.offsets]) for row in rows),
        words=_flat(row.pick([-1 if word is None else word for word in row.encoding.word_ids]) for row in rows),
        sequences=_flat(row.pick(_sequences(row.encoding).tolist()) for row in rows),
    )


def _windows(rows: Sequence[_Row]) -> Windows:
    own = [np.ones(len(row), np.bool_) if row.own is None else row.own for row in rows]
    return Windows(texts=np.array([row.text for row in rows]), own=np.concatenate(own))


def _sequences(encoding: Any) -> Int64Array:
    """Return 0 or 1 for the tokens of the first and second text, -1 for special tokens."""
    return np.array([-1 if part is None else part for part in encoding.sequence_ids], np.int64)


def _flat(rows: Iterable[Iterable[int]]) -> Int64Array:
    return np.fromiter(chain.from_iterable(rows), np.int64)


def _swapped(texts: Sequence[Text], first: int) -> list[Text]:
    for index, text in enumerate(texts, start=first):
        if isinstance(text, str):
            raise InputTypeError(f"text {index}: this model compares two texts, so each input must be a pair")
    return [(text[1], text[0]) for text in texts]
