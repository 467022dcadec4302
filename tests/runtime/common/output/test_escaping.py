"""Texts are shown with escapes in place of characters that steer terminals, end lines, or are not Unicode."""

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encort.runtime.common.output.escaping import as_unicode, dump_json, is_unicode, printable

ANY_TEXT = st.text(st.characters(exclude_categories=[]))
DANGEROUS = "\x00\a\b\t\n\r\x1b\x7f\x85\x9b\u2028\u2029\u202e\u2066\ud800\udcff"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("card\x1b]0;title\x07", r"card\x1b]0;title\x07"),
        ("\x9b2J", r"\x9b2J"),
        ("a\r\nb\tc", r"a\x0d\x0ab\x09c"),
        ("a\u2028b\u202ec", r"a\u2028b\u202ec"),
        ("file\udcff.bundle", r"file\udcff.bundle"),
        ("안녕 😀 👩\u200d💻 \u200fשלם é", "안녕 😀 👩\u200d💻 \u200fשלם é"),
        (7, "7"),
    ],
)
def test_a_text_is_shown_in_one_line(text: object, shown: str) -> None:
    assert printable(text) == shown


@given(ANY_TEXT)
def test_nothing_that_is_shown_steers_a_terminal(text: str) -> None:
    shown = printable(text)
    assert not {"Cc", "Cs", "Zl", "Zp"}.intersection(map(unicodedata.category, shown))
    assert len(shown.splitlines()) <= 1
    assert shown.encode().decode() == printable(shown) == shown


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner)))
def test_json_is_read_again_and_cannot_steer_a_terminal(value: Any) -> None:
    text = dump_json(value)
    # Two surrogates that belong together are one character for every reader of JSON.
    assert json.loads(text) == json.loads(json.dumps(value))
    assert text == printable(text)


def test_json_keeps_the_letters_of_all_languages() -> None:
    assert dump_json({"label": "안녕 é😀"}) == '{"label": "안녕 é😀"}'
    assert not re.search(f"[{DANGEROUS}]", dump_json(DANGEROUS))


@given(ANY_TEXT)
def test_a_text_becomes_unicode(text: str) -> None:
    assert as_unicode(text).encode().decode() == as_unicode(text)
    assert (as_unicode(text) == text) is is_unicode(text)
