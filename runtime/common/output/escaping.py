"""Escape the characters of a text that steer terminals, end lines, reorder what is shown, or are not Unicode."""

import json
from collections.abc import Callable
from typing import Any

_CONTROLS = (*range(0x20), *range(0x7F, 0xA0))
_LINE_SEPARATORS = (0x2028, 0x2029)
_BIDIRECTIONAL = (*range(0x202A, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)

_JSON_ESCAPES = {
    code: f"\\u{code:04x}" for code in (*_CONTROLS[0x20:], *_LINE_SEPARATORS, *_BIDIRECTIONAL, *_SURROGATES)
}
"""The characters that `json.dumps` leaves as they are. They are in strings only, where JSON has these escapes."""
_ESCAPES = {**_JSON_ESCAPES, **{code: f"\\x{code:02x}" for code in _CONTROLS}}


def printable(text: object) -> str:
    r"""Return a text as one line that shows what is in it.

    >>> printable("card\x1b[2J\n")
    'card\\x1b[2J\\x0a'
    """
    return str(text).translate(_ESCAPES)


def as_unicode(text: str) -> str:
    """Return a text whose unpaired surrogates, as in file names of unknown encoding, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_unicode(text: str) -> bool:
    """Return whether a text has no unpaired surrogates, so that UTF-8 can hold it."""
    return text == as_unicode(text)


def dump_json(value: Any, *, indent: int | None = None, default: Callable[[Any], Any] | None = None) -> str:
    """Return a value as JSON in readable Unicode, with escapes for all characters that `printable` escapes.

    Args:
        value: The value.
        indent: See `json.dumps`.
        default: See `json.dumps`.
    """
    return json.dumps(value, indent=indent, ensure_ascii=False, default=default).translate(_JSON_ESCAPES)
