"""Words of a text, and the tokens of each: the same words whatever the tokenizer.

Training gives the tags of words to tokens, and serving reads the tags of words from tokens. Both use these functions,
so that a tag is read from the token that learned it.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from encort.runtime.common.arrays import Int64Array
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch

_WORD = re.compile("w+|1")
"""One word of a text whose characters were replaced by the letters of their kinds."""

_UNSPACED = [
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # CJK ideographs
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
]
"""Scripts that put no white space between words."""


class _Kinds(dict[int, str]):
    """Kind of each character, for `str.translate`: white space, `1` for a word of its own, `w` for a part of a word."""

    def __missing__(self, code: int) -> str:
        self[code] = _kind_of(code)
        return self[code]


def _kind_of(code: int) -> str:
    character = chr(code)
    if character.isspace():
        return " "
    is_symbol = code < 0x80 and character.isprintable() and not character.isalnum()
    is_punctuation = is_symbol or unicodedata.category(character).startswith("P")
    is_alone = is_punctuation or any(first <= code <= last for first, last in _UNSPACED)
    return "1" if is_alone else "w"


_KINDS = _Kinds()


@dataclass(frozen=True)
class TokenGroup:
    """Neighbouring tokens that have one tag.

    Attributes:
        first: Number of its first token in the batch. It may be white space alone, such as the `▁` before a word.
        last: Number of its last token in the batch.
        start: Offset of its first character in the text.
        end: Offset behind its last character.
    """

    first: int
    last: int
    start: int
    end: int


@dataclass(frozen=True)
class SubwordMarks:
    """Signs by which the pipelines of transformers tell the tokens that go on with a word.

    Attributes:
        has_prefix: Whether such tokens have a prefix, such as `##`. Otherwise a token goes on with a word if no space
            is before it.
        unknown: Id of the unknown token, which is always a word of its own; None if there is none.
    """

    has_prefix: bool = True
    unknown: int | None = None


def word_groups(batch: TokenBatch, index: int) -> Iterator[TokenGroup]:
    """Yield the words of a text that have tokens, in reading order.

    A word ends at white space, and a punctuation mark is a word of its own, as in BERT. Where a script puts no white
    space between words, each character is a word. A token belongs to the word in which it begins, white space aside.
    Letters at the edges of a word that the tokenizer drops belong to the word.

    Args:
        batch: Texts, not pairs, with the offsets of their tokens.
        index: Number of the text.
    """
    text = _read_text(batch, index) if batch.truncated[index] else str(batch.texts[index])
    graphemes = Graphemes(str(batch.texts[index]), end=len(text))
    starts, ends = _word_edges(text, graphemes)
    owned = list(owned_groups(batch, index, starts))
    next_starts = [*(group.start for _, group in owned[1:]), len(text)]
    before = 0  # the end of the word before, which may have a token that reaches into this word
    for (owner, group), next_start in zip(owned, next_starts, strict=False):
        start = min(group.start, max(before, int(starts[owner])))
        end = max(group.end, min(next_start, int(ends[owner])))
        before = group.end
        visible_start, visible_end = graphemes.visible(group.start, group.end)
        if visible_start < visible_end:
            yield TokenGroup(group.first, group.last, *graphemes.visible(start, end))


def _word_edges(text: str, graphemes: Graphemes) -> tuple[Int64Array, Int64Array]:
    """Return the offsets of the first characters of all words, and those behind their last characters."""
    edges = np.array([match.span() for match in _WORD.finditer(text.translate(_KINDS))], np.int64).reshape(-1, 2)
    starts = graphemes.at_starts(edges[:, 0])  # a word that begins inside of a cluster belongs to the word before
    lasts = np.append(edges[:, 0].searchsorted(starts[1:]), len(edges))[: len(starts)] - 1
    return starts, edges[lasts, 1]


def owned_groups(batch: TokenBatch, index: int, starts: Int64Array) -> Iterator[tuple[int, TokenGroup]]:
    """Yield the number and the tokens of each part of a text that has tokens; see `word_groups`.

    Args:
        batch: Texts, not pairs, with the offsets of their tokens.
        index: Number of the text.
        starts: Offset of the first character of each part.
    """
    tokens = _text_tokens(batch, index)
    if not len(starts) or not len(tokens):
        return
    owners = starts.searchsorted(_visible_starts(batch, index, tokens, starts), side="right") - 1
    firsts = np.flatnonzero(np.diff(owners, prepend=-1))
    lasts = np.append(firsts[1:], len(tokens)) - 1
    yield from zip(owners[firsts].tolist(), _groups(batch, tokens[firsts], tokens[lasts]), strict=True)


def token_groups(batch: TokenBatch, index: int) -> Iterator[TokenGroup]:
    """Yield each token of a text as a group; see `word_groups`."""
    tokens = _text_tokens(batch, index)
    yield from _groups(batch, tokens, tokens)


def pipeline_groups(batch: TokenBatch, index: int, marks: SubwordMarks) -> Iterator[TokenGroup]:
    """Yield the words of a text as the pipelines of transformers see them; see `word_groups`.

    Without a prefix such as `##`, these are parts between spaces, with their punctuation: "Paris." is one word.
    """
    assert batch.offsets is not None
    tokens, text = _text_tokens(batch, index), str(batch.texts[index])
    words, starts = batch.offsets.words[tokens], batch.offsets.starts[tokens]
    if marks.has_prefix:
        goes_on = (np.diff(words, prepend=-1) == 0) & (words >= 0)
    else:
        goes_on = np.array(
            [start > 0 and " " not in text[start - 1 : start + 1] for start in starts.tolist()], np.bool_
        )
    if marks.unknown is not None:
        goes_on &= batch.ids[tokens] != marks.unknown
    goes_on[:1] = False
    firsts = np.flatnonzero(~goes_on)
    yield from _groups(batch, tokens[firsts], tokens[np.append(firsts[1:], len(tokens)) - 1] if len(tokens) else tokens)


def _text_tokens(batch: TokenBatch, index: int) -> Int64Array:
    """Return the numbers of the tokens of a text in the batch, without special tokens."""
    assert batch.offsets is not None
    start, stop = batch.cu_seqlens[index : index + 2].tolist()
    tokens: Int64Array = np.flatnonzero(batch.offsets.sequences[start:stop] >= 0) + start
    return tokens


def _read_text(batch: TokenBatch, index: int) -> str:
    """Return a text up to the end of its last token: of a text of megabytes, a model may read a page."""
    assert batch.offsets is not None
    start, stop = batch.cu_seqlens[index : index + 2]
    return str(batch.texts[index])[: int(batch.offsets.ends[start:stop].max(initial=0))]


def _visible_starts(batch: TokenBatch, index: int, tokens: Int64Array, words: Int64Array) -> Int64Array:
    """Return the offset of the first character of each token that is no white space; its end if there is none."""
    assert batch.offsets is not None
    kinds = _read_text(batch, index).translate(_KINDS)
    starts, ends = batch.offsets.starts[tokens], batch.offsets.ends[tokens]
    is_space = np.frombuffer(f"{kinds}w".encode(), np.uint8) == ord(" ")
    next_words = np.append(words, len(kinds))[words.searchsorted(starts)]
    return np.where(is_space[starts], np.minimum(next_words, ends), starts)


def _groups(batch: TokenBatch, firsts: Int64Array, lasts: Int64Array) -> Iterator[TokenGroup]:
    assert batch.offsets is not None
    starts, ends = batch.offsets.starts[firsts], batch.offsets.ends[lasts]
    yield from itertools.starmap(
        TokenGroup, zip(firsts.tolist(), lasts.tolist(), starts.tolist(), ends.tolist(), strict=True)
    )
