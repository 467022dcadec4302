"""Markdown that shows the texts in it as they are, even if they look like Markdown or HTML."""

import re
from collections.abc import Sequence

from encort.runtime.common.output.escaping import printable

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_SPECIAL = re.compile(
    r"(?P<entity>[&<>|])"
    r"|[\\`*~$]"
    r"|(?<=\])[(\[]"  # between the text and the address of a link or a picture
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore inside of a word is no emphasis
)


class Markdown(str):
    """A text that is Markdown already, so that `table` does not escape it."""

    __slots__ = ()


def escape(text: object) -> str:
    r"""Return Markdown that shows a text, in one line.

    >>> escape("<b>my_card</b> | *lost*")
    '&lt;b&gt;my_card&lt;/b&gt; &#124; \\*lost\\*'
    """
    if isinstance(text, Markdown):
        return text
    return _SPECIAL.sub(_replace, printable(" ".join(str(text).split())))


def table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> list[str]:
    """Return the lines of a table; its cells are escaped, and short rows get empty cells."""
    cells = [header, [Markdown("---")] * len(header), *rows]
    return [f"| {' | '.join(map(escape, [*row, *[''] * (len(header) - len(row))]))} |" for row in cells]


def _replace(match: re.Match[str]) -> str:
    return _ENTITIES[match[0]] if match["entity"] else f"\\{match[0]}"
