"""`JoinedWords`: a text that was joined from words, for those who have words."""

import reprlib
from collections.abc import Sequence
from typing import Self

from encort.runtime.common.errors import InputTypeError
from encort.runtime.common.token_lists import JoinedTokens, TokenKind


class JoinedWords(JoinedTokens):
    """A text that was joined from words which a caller gave, and of which each gets a tag; see `JoinedTokens`."""

    @classmethod
    def of(cls, tokens: Sequence[str], kind: TokenKind | None = None) -> Self:
        """Return the text of some words; see `JoinedTokens`.

        Raises:
            InputTypeError: It is not a sequence of str.
        """
        if (
            isinstance(tokens, str)
            or not isinstance(tokens, Sequence)
            or not all(isinstance(word, str) for word in tokens)
        ):
            raise InputTypeError(f"expected the words of a text, a list of str, got {reprlib.repr(tokens)}")
        return super().of(tokens, kind)
