"""`JoinedWords`: a text that was joined from words, for those who have words."""

import reprlib
import unicodedata
from collections.abc import Sequence
from itertools import pairwise
from typing import Self

from encort.runtime.common.errors import InputTypeError
from encort.runtime.common.tables.conll import join_tokens

_OF_SPACED_WORDS = frozenset(["Lu", "Ll", "Lt", "Nd"])
"""Categories of characters in scripts that put white space between words."""


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

        Characters and parts of words are joined without spaces: single characters with white space or letters without
        case among them, such as Hangul; or words of which one is white space, unless two words would be glued.

        Raises:
            InputTypeError: It is not a sequence of str.
        """
        if (
            isinstance(words, str)
            or not isinstance(words, Sequence)
            or not all(isinstance(word, str) for word in words)
        ):
            raise InputTypeError(f"expected the words of a text, a list of str, got {reprlib.repr(words)}")
        text, starts = join_tokens(words, characters=_are_characters(words))
        joined = cls(text)
        joined.words, joined.starts = tuple(words), tuple(starts)
        return joined


def _are_characters(words: Sequence[str]) -> bool:
    has_space = any(map(str.isspace, words))
    if all(len(word) == 1 for word in words):
        return has_space or any(unicodedata.category(word) == "Lo" for word in words)
    return has_space and not any(_would_be_glued(first, second) for first, second in pairwise(filter(None, words)))


def _would_be_glued(first: str, second: str) -> bool:
    """Return whether two neighbouring words become one without a space: letters with case, or digits, would meet."""
    return all(unicodedata.category(character) in _OF_SPACED_WORDS for character in (first[-1], second[0]))
