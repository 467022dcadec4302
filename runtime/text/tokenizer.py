"""From texts to token ids, with the bundle's own `tokenizer.json`."""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, cast, get_args

import numpy as np

from encort.runtime.common.checks import check_choice, check_whole
from encort.runtime.common.errors import BundleError, InputError, InputTypeError
from encort.runtime.text.added_tokens import add_tokens
from encort.runtime.text.backend import Backend, Check, check_nothing
from encort.runtime.text.long_inputs import LongInput, read_inputs
from encort.runtime.text.rows import TokenRow, cut_rows, join_rows
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.token_prompt import TokenPrompt
from encort.runtime.text.validation import check_texts, checked_token_ids, is_token_ids
from encort.runtime.text.vocabulary import Vocabulary
from encort.runtime.text.windows import Overflow
from encort.runtime.text.words import SubwordMarks

LIMIT = 2**20
"""More tokens than any encoder reads: a larger `max_length` in a manifest is a mistake."""

_CHARACTERS = 16
"""Characters per token that are read at a time of a long text. Prose has four or five characters per token."""
_LONGEST_PIECE = 2**14
"""Most characters that are read at a time, which takes some milliseconds."""
_LONG_TEXTS = 64
"""Long texts that are read side by side, so that memory stays flat."""


class Tokenizer:
    """The tokenizer of a bundle. Any number of threads may call it.

    Attributes:
        vocabulary: Its tokens and their ids.
    """

    def __init__(self, content: bytes, *, max_length: int) -> None:
        """Read a tokenizer.

        Args:
            content: Content of a `tokenizer.json` of the tokenizers library.
            max_length: Most tokens of an input, special tokens included.

        Raises:
            BundleError: The content is not a tokenizer, or `max_length` makes no sense for it.
        """
        self._backend = Backend(content)
        self._check_limit(max_length)
        self._max_length = max_length
        self.vocabulary = Vocabulary(self._backend)
        self._piece = min(_CHARACTERS * max_length, _LONGEST_PIECE)

    def limited(self, max_length: int) -> "Tokenizer":
        """Return a tokenizer with the same vocabulary, which is not read again, and a lower limit.

        Raises:
            BundleError: `max_length` makes no sense for the tokenizer.
        """
        self._check_limit(max_length)
        return self._limited(max_length)

    def _check_limit(self, max_length: int) -> None:
        special = self._backend.library.num_special_tokens_to_add(is_pair=False)
        if not special < max_length < LIMIT:
            raise BundleError(f"max_length {max_length} is not between {special + 1} and {LIMIT} tokens")

    @property
    def subword_marks(self) -> SubwordMarks:
        """Signs by which the pipelines of transformers find words."""
        return self._backend.subword_marks

    def __call__(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        prompt: str | TokenPrompt = "",
        first: int = 0,
        return_offsets: bool = False,
        return_prompt_length: bool = False,
        reverse: bool = False,
        all_cores: bool = False,
        check: Check = check_nothing,
    ) -> TokenBatch:
        """Tokenize texts or pairs of texts, special tokens included. Token ids are taken as they are.

        Args:
            texts: Each a str, or a tuple of two str for a pair; or token ids for all of them.
            overflow: `"truncate"` cuts the end of a text at the limit, or its beginning if `tokenizer.json` says so,
                and sets `truncated`. Of a pair, it cuts the longer text first. `"truncate_left"` cuts beginnings
                whatever `tokenizer.json` says. `"error"` refuses the text. `"window"` makes overlapping windows over a
                text, or over the second text of a pair.
            stride: Tokens that neighbouring windows share; None: a quarter of a window, at most 128.
            prompt: Text that is put before each text, or before the first text of each pair. It is in every window. Or
                tokens that are added to each text.
            first: Number of the first text, for messages about a part of many.
            return_offsets: Whether to return the offsets of the tokens in their texts.
            return_prompt_length: Whether to return the number of the prompt's tokens, for models that pool the others.
            reverse: Whether to tokenize every pair with its texts swapped, too.
            all_cores: Whether the tokenizers library may use all cores of the process, which it does for many texts at
                a time. Otherwise it gets one text at a time.
            check: Called again and again while texts are read. An error that it raises ends the call.

        Only the beginning of a text over the limit is read, unless the beginning is cut. Its tokens are those of the
        whole text, except near a word of more than 65,536 characters, which is read in parts.

        Raises:
            InputTypeError: `texts` is not a sequence of str or pairs of str, or of pairs with `reverse`.
            InputError: A text holds an unpaired surrogate, so it is not Unicode; an id is not in the vocabulary;
                token ids are given with a prompt; or the tokenizer fails on a text, for example because it lacks an
                unknown token.
            InputTooLongError: A text is longer than the limit, with `overflow="error"`.
        """
        if isinstance(prompt, TokenPrompt):
            if overflow == "window":
                raise InputError('token vectors of queries and documents cannot be read in windows; use "truncate"')
            limited = self._limited(prompt.text_length(self._max_length))
            plain = limited(
                texts,
                overflow=overflow,
                stride=stride,
                prompt=prompt.text,
                first=first,
                return_offsets=return_offsets,
                all_cores=all_cores,
                check=check,
            )
            return add_tokens(prompt, plain, self._max_length)
        if is_token_ids(texts) and reverse:
            raise InputTypeError("this model reads pairs in either order; give pairs of texts, not token ids")
        if is_token_ids(texts):
            batch = self._from_token_ids(texts, first, prompt)
            return replace(batch, prompt_length=0) if return_prompt_length else batch
        texts = cast("Sequence[Text]", texts)
        check_texts(texts, first=first)
        check_choice("overflow", overflow, get_args(Overflow))
        if reverse and overflow == "window":
            raise InputError('this model reads pairs in either order, so it cannot cut windows; use "truncate"')
        if stride is not None:
            check_whole("stride", stride, least=0)
        texts = _put_before(prompt, texts)
        needs_length = return_prompt_length or overflow == "window"
        prompt_length = self._prompt_length(prompt, first) if needs_length else 0
        tokens = self._read(texts, overflow, first, return_offsets=return_offsets, all_cores=all_cores, check=check)
        rows: list[TokenRow] = []
        for index, of_text in enumerate(tokens):
            check()
            rows += cut_rows(
                index,
                of_text,
                limit=self._max_length,
                overflow=overflow,
                stride=stride,
                cuts_beginning=self._cuts_beginning(overflow),
                number=first + index,
                prompt_length=prompt_length,
            )
        check()
        known_length = prompt_length if return_prompt_length else None
        batch = join_rows(rows, texts, return_offsets=return_offsets, prompt=prompt, prompt_length=known_length)
        if not reverse:
            return batch
        swapped = self(_swapped(texts, first), overflow=overflow, first=first, all_cores=all_cores, check=check)
        return replace(batch, reversed=swapped)

    def _limited(self, max_length: int) -> "Tokenizer":
        """Return a tokenizer with a smaller limit, which shares the vocabulary."""
        limited = copy.copy(self)
        limited._max_length = max_length
        limited._piece = min(self._piece, _CHARACTERS * max_length)
        return limited

    def _read(
        self,
        texts: Sequence[Text],
        overflow: Overflow,
        first: int,
        *,
        return_offsets: bool,
        all_cores: bool,
        check: Check,
    ) -> list[Any]:
        """Return the tokens of every text: `Tokens` of a long one, else an encoding of the library."""
        long = [index for index, text in enumerate(texts) if self._is_long(text)]
        short = sorted({*range(len(texts))}.difference(long)) if long else range(len(texts))
        encode = partial(self._backend.encode, all_cores=all_cores, check=check)
        encodings = encode(
            [texts[index] for index in short],
            numbers=[first + index for index in short],
            add_special_tokens=True,
            with_offsets=return_offsets,
        )
        tokens: dict[int, Any] = dict(zip(short, encodings, strict=True))
        needs_end = overflow == "window" or self._cuts_beginning(overflow)
        enough_tokens = math.inf if needs_end else self._max_length + 1
        for start in range(0, len(long), _LONG_TEXTS):
            group = long[start : start + _LONG_TEXTS]
            inputs = [LongInput(texts[index], piece=self._piece, enough_tokens=enough_tokens) for index in group]
            read_inputs(inputs, encode, [first + index for index in group])
            tokens |= {
                index: of_input.tokens(self._backend.library) for index, of_input in zip(group, inputs, strict=True)
            }
        return [tokens[index] for index in range(len(texts))]

    def _cuts_beginning(self, overflow: Overflow) -> bool:
        return overflow == "truncate_left" or (overflow == "truncate" and self._backend.cuts_beginning)

    def _is_long(self, text: Text) -> bool:
        return max(map(len, (text,) if isinstance(text, str) else text)) > self._piece

    def _prompt_length(self, prompt: str, first: int) -> int:
        """Return the number of tokens of a prompt alone, without the special tokens behind it.

        This is how sentence-transformers counts them. A token across the end of the prompt, which the prompt alone does
        not have, makes no difference.
        """
        if not prompt:
            return 0
        (encoding,) = self._backend.encode(
            [prompt],
            numbers=[first],
            add_special_tokens=True,
            with_offsets=False,
            all_cores=False,
            check=check_nothing,
        )
        # As of a text, the end of a prompt over the limit is cut.
        return min(len(encoding), self._max_length) - int(encoding.special_tokens_mask[-1])

    def _from_token_ids(self, texts: Sequence[TokenIds], first: int, prompt: str) -> TokenBatch:
        if prompt:
            raise InputError(
                f'the prompt {prompt!r} cannot be put before token ids; give texts, or prompt="" for ids that have it'
            )
        rows = checked_token_ids(texts, size=self._backend.vocabulary_size, limit=self._max_length, first=first)
        ids = np.fromiter(chain.from_iterable(rows), np.int64)
        return TokenBatch(
            ids=ids,
            type_ids=np.zeros_like(ids),
            cu_seqlens=np.cumsum([0, *map(len, rows)], dtype=np.int64),
            truncated=np.zeros(len(rows), np.bool_),
        )


def _put_before(prompt: str, texts: Sequence[Text]) -> Sequence[Text]:
    """Return texts with a prompt before each, and pairs with the prompt before their first text."""
    if not prompt:
        return texts
    return [prompt + text if isinstance(text, str) else (prompt + text[0], text[1]) for text in texts]


def _swapped(texts: Sequence[Text], first: int) -> list[Text]:
    for index, text in enumerate(texts, start=first):
        if isinstance(text, str):
            raise InputTypeError(f"text {index}: this model compares two texts, so each input must be a pair")
    return [(text[1], text[0]) for text in texts]
