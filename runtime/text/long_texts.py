"""Read a long text in pieces: as much as the model needs, in linear time, with the tokens of the whole text.

A piece begins some words before the tokens that are known, and its last words are left to the next piece, because a
tokenizer looks at the neighbours of a word. A piece that ends inside one endless word is encoded again with more text.
If such a word gives no more tokens, as a megabyte of spaces or of one letter, the characters like it are skipped.
"""

import re
from dataclasses import replace
from typing import Any

import numpy as np

from encort.runtime.common.arrays import Int64Array
from encort.runtime.text.tokens import Tokens, concatenate_tokens

_UNSTABLE_WORDS = 16
"""Words at either end of a piece whose tokens may differ in the whole text."""
_GROWTH = 8
_LONGEST_PIECE = 2**17
"""Most characters of a piece, which take about 0.1 s. A longer word is read in parts."""
_SILENT = 4096
"""Characters without the start of a token from which on characters like them are skipped. WordPiece reads a word of
more than 100 characters as unknown, whatever follows."""
_DROPPED = 64
"""Characters at the end of a word that its offsets may leave out, because the tokenizer drops them."""
_SEAMS = (1024, 256, 64, 16, 4, 2, 1)
"""Numbers of equal characters before the two sides of a cut, the best one first."""
_SEARCH = 2**20
"""Characters that are searched at a time, so that other threads get their turn."""


class LongText:
    """A text that is read piece by piece.

    >>> while not text.is_done:  # doctest: +SKIP
    ...     text.take(tokenizer.encode(text.piece, add_special_tokens=False))

    Attributes:
        beginning: The first encoding that has tokens; the last encoding if none has.
        is_complete: Whether the text was read to its end.
    """

    def __init__(self, text: str, *, piece: int, enough_tokens: float, least: int = 0) -> None:
        """Start at the beginning of a text.

        Args:
            text: The text.
            piece: Characters of a piece.
            enough_tokens: Number of tokens after which the rest of the text does not matter.
            least: Characters that are read in any case.
        """
        self._text, self._shortest_piece, self._size = text, piece, piece
        self._enough_tokens, self._least = enough_tokens, least
        self._start = self._known_end = 0  # of the next piece, and of the tokens that are kept
        self._parts: list[Tokens] = []
        self._count = self._last_word = 0
        self._skipped: list[tuple[int, int]] = [(0, 0)]  # position in `_text`, and characters skipped up to there
        self.beginning: Any = None
        self.is_complete = False

    @property
    def is_done(self) -> bool:
        """Whether no more pieces are needed."""
        return self.is_complete or (self._count >= self._enough_tokens and self._known_end >= self._least)

    @property
    def piece(self) -> str:
        """The text to encode next, without special tokens."""
        return self._text[self._start : self._start + self._size]

    def take(self, encoding: Any) -> None:
        """Take the encoding of `piece`."""
        if self.beginning is None or not len(self.beginning):
            self.beginning = encoding
        tokens = Tokens.of(encoding)
        tokens = replace(tokens, starts=tokens.starts + self._start, ends=tokens.ends + self._start)
        first, stable = _first_from(tokens, self._known_end), _count_stable(tokens)
        end = self._start + self._size
        if end >= len(self._text):
            self.is_complete = True
            self._keep(tokens, first, len(tokens), len(self._text))
        elif stable > first:
            self._keep(tokens, first, stable, int(tokens.starts[stable]))
            self._size = self._shortest_piece
        elif not self._skip_silence(tokens, end):
            self._take_more(tokens, first)

    def tokens(self) -> Tokens:
        """Return the tokens that were read, with offsets in the text."""
        tokens = concatenate_tokens(self._parts or [Tokens.of(self.beginning)])
        positions, counts = np.array(self._skipped, np.int64).T
        skipped = [
            counts[np.searchsorted(positions, array, side="right") - 1] for array in (tokens.starts, tokens.ends)
        ]
        return replace(tokens, starts=tokens.starts + skipped[0], ends=tokens.ends + skipped[1])

    def _take_more(self, tokens: Tokens, first: int) -> None:
        """Encode the same word with more text. A word without end is cut in the middle of the longest piece."""
        if self._size < _LONGEST_PIECE:
            self._size = min(_LONGEST_PIECE, _GROWTH * self._size)
            return
        middle = self._start + self._size // 2
        cut = _first_from(tokens, middle)
        self._keep(tokens, first, cut, int(tokens.starts[cut]) if cut < len(tokens) else middle)

    def _keep(self, tokens: Tokens, first: int, end: int, known_end: int) -> None:
        """Keep the tokens from `first` to `end`, and let the next piece begin some words before them."""
        if first < end:
            words = tokens.words + self._word_shift(tokens.words, first)
            self._last_word = int(words[end - 1])
            self._parts.append(replace(tokens, words=words)[first:end])
            self._count += end - first
        self._known_end = known_end
        context = int(np.searchsorted(tokens.words[:end], tokens.words[end - 1] - _UNSTABLE_WORDS)) if end else 0
        context = max(context, _first_from(tokens, known_end - _LONGEST_PIECE // 4))
        if context < end:
            self._start = int(tokens.starts[context]) if context else self._start
        else:  # a word without end
            self._start = max(self._start, known_end - _LONGEST_PIECE // 4)

    def _word_shift(self, words: Int64Array, first: int) -> int:
        """Return the number of the first word of a piece in the text."""
        if not self._count:
            return 0
        # The token before the first new one is the last one that was kept.
        return self._last_word - int(words[first - 1]) if first else self._last_word + 1 - int(words[0])

    def _skip_silence(self, tokens: Tokens, end: int) -> bool:
        """Skip the characters after a piece that are like its last ones, if those start no token.

        They are all dropped by the tokenizer, or all in one unknown word.
        """
        begin = end - _SILENT
        last_start, last_end = (int(tokens.starts[-1]), int(tokens.ends[-1])) if len(tokens) else (-1, 0)
        if begin < self._start or begin <= last_start:
            return False
        silent = self._text[begin:end]
        if not (last_end <= begin or (last_end > end - _DROPPED and not re.search(r"\s", silent))):
            return False
        # The last ones are read: the word ends at the last character that the tokenizer does not drop.
        most = _count_like(silent, self._text, end) - _SILENT
        if most < _SILENT:
            return False
        skipped = _find_seam(self._text, end, end + most) - end
        self._text = self._text[:end] + self._text[end + skipped :]
        self._skipped.append((end, self._skipped[-1][1] + skipped))
        return True


def _count_like(sample: str, text: str, start: int) -> int:
    """Return the number of characters from `start` on that all occur in a sample."""
    like = re.compile(f"[{re.escape(''.join(sorted(set(sample))))}]*")
    end, limit = start, start
    while end == limit < len(text):
        limit = min(len(text), limit + _SEARCH)
        found = like.match(text, end, limit)
        end = found.end() if found else end
    return end - start


def _find_seam(text: str, start: int, stop: int) -> int:
    """Return where the text can go on if it is cut at `start`: at or before `stop`.

    The characters before both places are equal, as many as possible, so that the cut makes no neighbours that give
    tokens. In a text that repeats itself, such as `abab`, a cut anywhere could make the neighbours `bb`.
    """
    for count in _SEAMS:
        place = text.rfind(text[start - count : start], max(start, stop - _SILENT), stop)
        if place >= 0:
            return place + count
    return stop


def _first_from(tokens: Tokens, position: int) -> int:
    """Return the index of the first token that starts at a position or after it."""
    return int(np.argmax(np.append(tokens.starts >= position, True)))


def _count_stable(tokens: Tokens) -> int:
    """Return the number of tokens before the last words of a piece; the next token starts behind all of them."""
    if not len(tokens):
        return 0
    stable = int(np.searchsorted(tokens.words, tokens.words[-1] - _UNSTABLE_WORDS))
    return _first_from(tokens, int(tokens.starts[stable]))
