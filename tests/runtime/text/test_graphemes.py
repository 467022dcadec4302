"""Parts of a text end at whole grapheme clusters, and white space is no part of them."""

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from encort.runtime.text.graphemes import Graphemes

PIECES = ["a", "é", ".", " ", "\r", "\n", "\r\n", "e\u0301", "❤️", "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "🇫", "1️⃣", "ที่"]
PIECES += ["น้ำ", "क्षत्रि", "गु", "తెలు", "ക്ഷ", "ক্ষ", "தமிழ்", "각", "ᄀ", "ᅡ", "ᆨ", "가", "\u06005", "\u200b", "\ufeff"]
PIECES += ["ｶﾞ", "🏴\U000e0067\U000e0062\U000e007f", "♂", "\u200d", "\u0301", "\u200c", "ကျွန်ုပ်", "ឡើង", "ລາວ", "中", "€"]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join))
def test_clusters_are_those_of_unicode_but_white_space_has_no_marks(text: str) -> None:
    is_line_end = [text[at - 1 : at + 1] == "\r\n" for at in range(len(text))]
    behind_space = {at for at in range(1, len(text)) if text[at - 1].isspace() and not is_line_end[at]}
    expected = {match.start() for match in regex.finditer(r"\X", text)} | behind_space
    starts = Graphemes(text).at_starts(np.arange(len(text))).tolist()
    # In a text of simple characters, both characters of a line end are found.
    assert {at for at in starts if not is_line_end[at]} == expected


@pytest.mark.parametrize(
    ("text", "start", "end", "expected"),
    [
        ("my card ", 2, 8, "card"),
        (" \t\u00a0card\u3000\r\n", 0, 9, "card"),
        ("गुरु x", 0, 3, "गुरु"),
        ("x क्षत्रिय", 2, 4, "क्ष"),
        ("น้ำ x", 0, 1, "น้ำ"),
        ("తెలుగు x", 0, 5, "తెలుగు"),
        ("x ❤️ y", 2, 3, "❤️"),
        ("👨\u200d👩\u200d👧 x", 2, 3, "👨\u200d👩\u200d👧"),
        ("🇩🇪🇫🇷 x", 3, 4, "🇫🇷"),
        ("x \u1100\u1161\u11a8 y", 3, 4, "\u1100\u1161\u11a8"),
        ("1️⃣ x", 0, 1, "1️⃣"),
        ("e\u0301a", 1, 2, "e\u0301"),
        (" \u0301a", 1, 3, "\u0301a"),
        ("\u200bzero\ufeff", 0, 6, "zero"),
        ("\u200b \r\n", 0, 4, ""),
        ("card", 2, 2, ""),
        ("\u06005 x", 1, 2, "\u06005"),
    ],
)
def test_a_part_has_visible_edges(text: str, start: int, end: int, expected: str) -> None:
    start, end = Graphemes(text).visible(start, end)
    assert text[start:end] == expected


def test_many_flags_take_linear_time() -> None:
    flags = "🇩🇪" * 20000
    graphemes = Graphemes(flags)
    middles = np.arange(1, len(flags), 2)
    assert (graphemes.visible_parts(middles, middles + 1) == np.stack([middles - 1, middles + 1], axis=1)).all()


def test_only_the_part_that_was_read_is_looked_at() -> None:
    graphemes = Graphemes("e\u0301 " * 100_000, end=4)
    assert graphemes.visible(3, 4) == (3, 5)
    assert len(graphemes.at_starts(np.arange(300_000))) < 100
