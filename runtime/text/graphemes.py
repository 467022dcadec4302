"""Characters as readers see them: grapheme clusters, and the edges of a part of a text.

The clusters are those of Unicode Standard Annex 29: a letter with its marks, an emoji sequence, a flag, a Hangul
syllable, a Devanagari conjunct. One difference: a mark behind white space does not belong to the white space.
"""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from encort.runtime.common.arrays import Int64Array

_JOINING = re.compile("[\u0300-\U0010ffff]")
"""Characters that can share a cluster with another one, besides a line end in two characters."""

_CLUSTER = re.compile(
    r"""
    P*(?:                             # a sign that is written before its number
        FF                            # two regional indicators: a flag
      | L*(?:V+|XV*|Y)T*|L+|T+        # a Hangul syllable
      | O(?:[EN]*JO)*                 # emoji, joined
      | C(?:[EJ]*N[ENJ]*C)*           # consonants of a conjunct
      | [FA]
      )[ENJ]*
    | P+[ENJ]* | [ENJ]+ | RD | [RDWB]
    """,
    re.VERBOSE,
)
"""One cluster of a text whose characters were replaced by the letters of their classes."""

_LONGEST_CLUSTER = 64
"""Characters behind an offset that may belong to its cluster. Longer clusters are cut there."""

_RANGES = [
    *(("P", *bounds) for bounds in ((0x600, 0x605), (0x6DD, 0x6DD), (0x70F, 0x70F), (0x8E2, 0x8E2), (0xD4E, 0xD4E))),
    *(("P", code, code) for code in (0x110BD, 0x110CD)),
    *(("N", block + 0x4D, block + 0x4D) for block in (0x900, 0x980, 0xA80, 0xB00, 0xC00, 0xD00)),
    *(("C", block + 0x15, block + 0x39) for block in (0x900, 0x980, 0xA80, 0xB00, 0xC00, 0xD00)),
    *(("E", code, code) for code in (0x200C, 0xE33, 0xEB3, 0xFF9E, 0xFF9F)),
    *(("E", *bounds) for bounds in ((0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F))),
    *(("L", *bounds) for bounds in ((0x1100, 0x115F), (0xA960, 0xA97C))),
    *(("V", *bounds) for bounds in ((0x1160, 0x11A7), (0xD7B0, 0xD7C6))),
    *(("T", *bounds) for bounds in ((0x11A8, 0x11FF), (0xD7CB, 0xD7FB))),
    ("J", 0x200D, 0x200D),
    ("F", 0x1F1E6, 0x1F1FF),
    ("R", 0x0D, 0x0D),
    ("D", 0x0A, 0x0A),
]
"""Classes of ranges of characters that their categories do not tell."""

_CATEGORIES = {"Mn": "E", "Me": "E", "Mc": "E", "So": "O", "Sm": "O", "Cc": "B", "Cf": "B"}
"""Classes of the other characters by their category."""


class _Classes(dict[int, str]):
    """Letter of the class of each character, for `str.translate`; a character is looked up once."""

    def __missing__(self, code: int) -> str:
        self[code] = _class_of(code)
        return self[code]


def _class_of(code: int) -> str:
    """Return the letter of a character's class, as `_CLUSTER` has it; white space has the class `W`."""
    for letter, first, last in _RANGES:
        if first <= code <= last:
            return letter
    if 0xAC00 <= code <= 0xD7A3:
        return "Y" if (code - 0xAC00) % 28 else "X"
    return "W" if chr(code).isspace() else _CATEGORIES.get(unicodedata.category(chr(code)), "A")


_CLASSES = _Classes()


class Graphemes:
    """The grapheme clusters of one text. Finding them takes time in proportion to its length, once."""

    def __init__(self, text: str, *, end: int | None = None) -> None:
        """Find the clusters, if any character of the text can join another.

        Args:
            text: The text.
            end: Offset behind the last character that matters: of a text of megabytes, a model may read a page. None:
                the end of the text.
        """
        text = text if end is None else text[: end + _LONGEST_CLUSTER]
        self._text = text
        self._starts: Int64Array | None = None
        if not text.isascii() and _JOINING.search(text):
            starts = [match.start() for match in _CLUSTER.finditer(text.translate(_CLASSES))]
            self._starts = np.array([*starts, len(text)], np.int64)

    def at_starts(self, offsets: Int64Array) -> Int64Array:
        """Return those of the offsets at which a cluster begins."""
        return offsets if self._starts is None else offsets[np.isin(offsets, self._starts)]

    def visible(self, start: int, end: int) -> tuple[int, int]:
        """Return the edges of a part of the text at whole clusters, without white space around it.

        A tokenizer may drop marks, and it may cut a cluster into several tokens. Control characters and characters
        without width count as white space. The edges are equal if nothing visible is left.

        >>> Graphemes("the cafe\u0301 ").visible(3, 8)
        (4, 9)
        """
        if start >= end:
            return start, start
        if self._starts is None:
            return self._trim(range(start, end + 1))
        first = int(self._starts.searchsorted(start, side="right")) - 1
        last = int(self._starts.searchsorted(end, side="left"))
        return self._trim(self._starts[first : last + 1].tolist())

    def visible_parts(self, starts: Int64Array, ends: Int64Array) -> Int64Array:
        """Return the edges of several parts of the text, `(parts, 2)` int64; see `visible`."""
        edges = [self.visible(start, end) for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
        return np.array(edges, np.int64).reshape(-1, 2)

    def _trim(self, edges: Sequence[int]) -> tuple[int, int]:
        """Return the edges of a row of clusters without the blank clusters at both sides.

        Args:
            edges: Start of each cluster, and the end of the last one.
        """
        first, last = 0, len(edges) - 1
        while first < last and _is_blank(self._text[edges[first] : edges[first + 1]]):
            first += 1
        while first < last and _is_blank(self._text[edges[last - 1] : edges[last]]):
            last -= 1
        return edges[first], edges[last]


def _is_blank(cluster: str) -> bool:
    return cluster.isspace() or (len(cluster) == 1 and unicodedata.category(cluster) in ("Cc", "Cf"))
