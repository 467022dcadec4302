"""`JoinedWords`: a text that was joined from words, for those who have words."""

import reprlib
from collections.abc import Sequence
from typing import Self

from encort.runtime.common.errors import InputTypeError
from encort.runtime.common.tables.conll import join_tokens


class JoinedWords(str):
    """A text that was joined from words.

    Attributes:
        words: The words.
        starts: Offset of each word in the text.
    """

    words: Sequence[str]
    starts: Sequence[int]

    @classmethod
    def of(cls, words: Sequence[str]) -> Self:
        """Return the text of some words, with a space between two of them.

        Characters are joined without spaces: words of which one is white space, or single characters that are not all
        ASCII.

        Raises:
            InputTypeError: It is not a sequence of str.
        """
        if (
            isinstance(words, str)
            or not isinstance(words, Sequence)
            or not all(isinstance(word, str) for word in words)
        ):
            raise InputTypeError(f"expected the words of a text, a list of str, got {reprlib.repr(words)}")
        are_single = all(len(word) == 1 for word in words) and not all(map(str.isascii, words))
        text, starts = join_tokens(words, characters=are_single or any(map(str.isspace, words)))
        joined = cls(text)
        joined.words, joined.starts = tuple(words), tuple(starts)
        return joined
