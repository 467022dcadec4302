"""Lists of words or of characters, and the text that is joined from them."""

import unicodedata
from collections.abc import Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Self

_OF_SPACED_WORDS = frozenset(["Lu", "Ll", "Lt", "Nd"])
"""Categories of characters in scripts that put white space between words."""


class TokenKind(StrEnum):
    """Kind of the items of a list of tokens.

    `words`: A space stands between two of them.
    `characters`: They are joined as they are: characters or parts of words, with the white space among them.
    """

    WORDS = "words"
    CHARACTERS = "characters"


def join_tokens(tokens: Sequence[str], kind: TokenKind) -> tuple[str, list[int]]:
    """Return the text that the tokens come from, and the offset of each token in it.

    >>> join_tokens(["New", "York", "!"], TokenKind.WORDS)
    ('New York !', [0, 4, 9])
    >>> join_tokens(["서", "울", " ", "1"], TokenKind.CHARACTERS)
    ('서울 1', [0, 1, 2, 3])
    """
    space = " " if kind is TokenKind.WORDS else ""
    starts = [0]
    for token in tokens[:-1]:
        starts.append(starts[-1] + len(token) + len(space))
    return space.join(tokens), starts[: len(tokens)]


def guess_kind(tokens: Sequence[str]) -> TokenKind:
    """Return what one list holds, if nothing else is known.

    It holds characters if they are single characters with white space or letters without case among them, such as
    Hangul; or if there is white space among them, and no two words would be glued.
    """
    has_space = any(map(str.isspace, tokens))
    if all(len(token) == 1 for token in tokens):
        are_characters = has_space or any(unicodedata.category(token) == "Lo" for token in tokens)
    else:
        neighbours = pairwise(filter(None, tokens))
        are_characters = has_space and not any(_would_be_glued(first, second) for first, second in neighbours)
    return TokenKind.CHARACTERS if are_characters else TokenKind.WORDS


def _would_be_glued(first: str, second: str) -> bool:
    """Return whether two neighbouring words become one without a space: letters with case, or digits, would meet."""
    return all(unicodedata.category(character) in _OF_SPACED_WORDS for character in (first[-1], second[0]))


class JoinedTokens(str):
    """A text that was joined from tokens, which can be joined again in another way.

    Attributes:
        tokens: The tokens.
        starts: Offset of each token in the text.
    """

    tokens: Sequence[str]
    starts: Sequence[int]

    @classmethod
    def of(cls, tokens: Sequence[str], kind: TokenKind | None = None) -> Self:
        """Return the text of some tokens.

        Args:
            tokens: The tokens.
            kind: What they are; None: see `guess_kind`.
        """
        text, starts = join_tokens(tokens, guess_kind(tokens) if kind is None else kind)
        joined = cls(text)
        joined.tokens, joined.starts = tuple(tokens), tuple(starts)
        return joined

    def joined_as(self, kind: TokenKind | None) -> Self:
        """Return the text of the same tokens, if they are of this kind; None leaves it as it is."""
        return self if kind is None else type(self).of(self.tokens, kind)
