"""Checks of inputs: texts, pairs of texts, or token ids."""

from collections.abc import Sequence
from typing import Any, TypeGuard

import numpy as np

from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError
from encort.runtime.text.token_batch import TokenIds


def check_texts(texts: object, *, first: int = 0) -> None:
    """Refuse inputs that are not a sequence of texts or pairs, before the model does any work.

    Args:
        texts: Inputs of a caller.
        first: Number of the first text, for messages about a part of many.

    Raises:
        InputTypeError: It is not a sequence, it is one bare text, or an item is neither a text nor a pair.
        InputError: A text has an unpaired surrogate, as `surrogateescape` leaves it for undecodable bytes.
    """
    if isinstance(texts, str | bytes):
        raise InputTypeError(f"expected a list of texts, got one {type(texts).__name__}: put it in a list")
    if not isinstance(texts, Sequence):
        raise InputTypeError(f"expected a list of texts, got {type(texts).__name__}: pass list(...)")
    for index, text in enumerate(texts, start=first):
        if isinstance(text, str):
            _check_unicode(text, f"text {index}")
        elif isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text):
            _check_unicode(text[0], f"text {index}")
            _check_unicode(text[1], f"text {index}")
        else:
            raise InputTypeError(f"text {index}: expected a str or a tuple of two str, got {_describe(text)}")


def check_query(query: object) -> None:
    """Refuse a query that is not one text.

    Raises:
        InputTypeError: It is not a str.
        InputError: See `check_texts`.
    """
    if not isinstance(query, str):
        raise InputTypeError(f"the query must be one str, got {_describe(query)}")
    _check_unicode(query, "the query")


def is_token_ids(texts: object) -> TypeGuard[Sequence[TokenIds]]:
    """Return whether inputs are token ids: the first item is a list or an array of integers."""
    if not isinstance(texts, Sequence) or isinstance(texts, str | bytes) or not texts:
        return False
    return integers(texts[0]) is not None


def checked_token_ids(texts: Sequence[TokenIds], *, size: int, limit: int, first: int = 0) -> list[list[int]]:
    """Return token ids that were given in place of texts, after checking them.

    Args:
        texts: Token ids of each input.
        size: Number of tokens in the vocabulary.
        limit: Most tokens of an input.
        first: Number of the first input, for messages about a part of many.

    Raises:
        InputTypeError: An item is not a list of integers.
        InputError: An id is not in the vocabulary, or an input has no ids.
        InputTooLongError: An input has too many ids: token ids are never cut.
    """
    rows = []
    for index, item in enumerate(texts, start=first):
        row = integers(item)
        if row is None:
            raise InputTypeError(f"text {index}: expected token ids like the first, got {_describe(item)}")
        if not row:
            raise InputError(f"text {index} has no token ids; a text without words still has its special tokens")
        if len(row) > limit:
            raise InputTooLongError(f"text {index} has {len(row)} token ids, the limit is {limit}; cut them yourself")
        if not 0 <= min(row) <= max(row) < size:
            raise InputError(f"text {index}: token ids must be from 0 to {size - 1}, got {min(row)} to {max(row)}")
        rows.append(row)
    return rows


def integers(item: Any) -> list[int] | None:
    """Return a list or an array of integers as a list; None for any other value."""
    if isinstance(item, np.ndarray):
        return item.tolist() if item.ndim == 1 and np.issubdtype(item.dtype, np.integer) else None
    if not isinstance(item, list) or any(type(value) is not int for value in item):
        return None
    return item


def _check_unicode(text: str, name: str) -> None:
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} has an unpaired surrogate {text[error.start]!r} at character {error.start}, so it is not "
            'Unicode; decode the original bytes with errors="replace"'
        ) from error


def _describe(value: object) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"
