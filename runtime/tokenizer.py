"""Texts to token ids, by the bundle's own `tokenizer.json`."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from encort.runtime.errors import BundleError, InputError, InputTooLongError, InputTypeError
from encort.runtime.tokens import Int64Array, Places, Text, TokenBatch

LIMIT = 2**20
"""More tokens than any encoder reads; a larger limit in a manifest is a mistake."""


class Overflow(StrEnum):
    """What becomes of a text that is longer than the limit."""

    TRUNCATE = "truncate"
    ERROR = "error"


class Tokenizer:
    """The tokenizer of a bundle; one object serves any number of threads."""

    def __init__(self, file: Path, *, max_length: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # tokenizers raises bare Exception
            raise BundleError(f"{file} is not a tokenizer ({error}); export the bundle again") from error
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        if not special < max_length < LIMIT:
            raise BundleError(f"max_length {max_length} is not between {special + 1} and {LIMIT} tokens")
        self._max_length = max_length
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)

    def __call__(
        self,
        texts: Sequence[Text],
        *,
        overflow: Overflow = Overflow.TRUNCATE,
        first: int = 0,
        places: bool = False,
        reverse: bool = False,
    ) -> TokenBatch:
        """Tokenize texts or pairs of texts, special tokens included.

        Args:
            texts: Each a str, or a tuple of two str for a pair.
            overflow: `TRUNCATE` cuts at the limit (a pair: the longer text first) and sets `truncated`.
            first: Number of the first text, for messages about a part of many.
            places: Also find where the tokens stand in their texts.
            reverse: Also tokenize every pair with its texts exchanged.

        Raises:
            InputTypeError: `texts` is not a sequence of str or pairs of str, or of pairs with `reverse`.
            InputError: A text holds an unpaired surrogate, so it is not Unicode.
            InputTooLongError: A text passes the limit, with `overflow=ERROR`.
        """
        check_texts(texts, first=first)
        encode = self._tokenizer.encode_batch if places else self._tokenizer.encode_batch_fast
        encodings = encode(list(texts))
        truncated = np.fromiter((bool(encoding.overflowing) for encoding in encodings), np.bool_, len(encodings))
        if overflow is Overflow.ERROR and truncated.any():
            raise InputTooLongError(
                f"text {first + int(truncated.argmax())} has more than {self._max_length} tokens; "
                'shorten it, or use overflow="truncate"'
            )
        return TokenBatch(
            ids=_flat(encoding.ids for encoding in encodings),
            type_ids=_flat(encoding.type_ids for encoding in encodings),
            cu_seqlens=np.cumsum([0, *map(len, encodings)], dtype=np.int64),
            truncated=truncated,
            texts=texts,
            places=_places(encodings) if places else None,
            reversed=self(_exchanged(texts, first)) if reverse else None,
        )


def _places(encodings: Sequence[Any]) -> Places:
    return Places(
        starts=_flat((start for start, _ in encoding.offsets) for encoding in encodings),
        ends=_flat((end for _, end in encoding.offsets) for encoding in encodings),
        words=_flat((-1 if word is None else word for word in encoding.word_ids) for encoding in encodings),
        sequences=_flat((-1 if part is None else part for part in encoding.sequence_ids) for encoding in encodings),
    )


def _flat(rows: Iterable[Iterable[int]]) -> Int64Array:
    return np.fromiter(chain.from_iterable(rows), np.int64)


def _exchanged(texts: Sequence[Text], first: int) -> list[Text]:
    for index, text in enumerate(texts, start=first):
        if isinstance(text, str):
            raise InputTypeError(f"text {index}: this model compares two texts, so each input must be a pair")
    return [(text[1], text[0]) for text in texts]


def check_texts(texts: Sequence[Text], *, first: int = 0) -> None:
    """Refuse what is not a sequence of texts, before the model has done any work.

    Raises:
        InputTypeError: Not a sequence, one bare text, or an item that is neither text nor pair.
        InputError: An unpaired surrogate, as `surrogateescape` leaves it for undecodable bytes.
    """
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"expected a list of texts, got one {type(texts).__name__}: put it in a list")
    if not isinstance(texts, Sequence):
        raise InputTypeError(f"expected a list of texts, got {type(texts).__name__}: pass list(...)")
    for index, text in enumerate(texts, start=first):
        if isinstance(text, str):
            _check_unicode(text, index)
        elif isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
            _check_unicode(text[0], index)
            _check_unicode(text[1], index)
        else:
            raise InputTypeError(f"text {index}: expected a str or a tuple of two str, got {_describe(text)}")


def _check_unicode(text: str, index: int) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"text {index} has an unpaired surrogate {text[error.start]!r} at character {error.start}, so it is not "
            'Unicode; decode the original bytes with errors="replace"'
        ) from error


def _describe(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"
