"""Read labelled spans of characters, as annotation tools write them, and make tagged tokens of them.

A span is a list of start, end and label, as Doccano writes it, or an object with these under the names that Doccano,
Label Studio, Prodigy and others use.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from encort.runtime.common.labelled_rows.cells import RowError, check_unicode, parse_list

_STARTS = ("start", "start_offset", "start_char")
_ENDS = ("end", "end_offset", "end_char")
_LABELS = ("label", "labels", "tag", "type", "entity_group", "entity")


@dataclass(frozen=True, order=True)
class LabelledSpan:
    """Characters of a text with a label.

    Attributes:
        start: Offset of the first character.
        end: Offset behind the last character.
        label: Name of the label.
    """

    start: int
    end: int
    label: str


def spans_cell(values: Mapping[str, Any], role: str) -> list[LabelledSpan]:
    """Return the spans of the role `text` in reading order, without the white space around them.

    If the text is no text, its own cell reports it.

    Raises:
        RowError: Something is no span, or outside of the text, or two spans overlap.
    """
    text, cell = values.get("text"), values.get(role)
    items = parse_list(cell) if isinstance(cell, str) else cell
    if not isinstance(items, list):
        raise RowError(f"there are no tokens, and {role} is not a list of spans with start, end and label")
    if not isinstance(text, str):
        return []
    spans = sorted({_read_span(item, text, role) for item in items})
    if any(right.start < left.end for left, right in pairwise(spans)):
        raise RowError("two spans overlap: a character can have one label only")
    return spans


def tag_pieces(text: str, spans: Sequence[LabelledSpan]) -> tuple[list[int], list[int], list[str]]:
    """Cut a text at white space and at the ends of spans, and tag the pieces.

    >>> tag_pieces("in New York.", [LabelledSpan(3, 11, "LOC")])
    ([0, 3, 7, 11], [2, 6, 11, 12], ['O', 'B-LOC', 'I-LOC', 'O'])

    Returns:
        Starts, ends and BIO tags of the pieces.
    """
    starts, ends, tags = [], [], []
    for start, end, span in _sections(text, spans):
        for number, piece in enumerate(re.finditer(r"\S+", text[start:end])):
            starts.append(start + piece.start())
            ends.append(start + piece.end())
            tags.append("O" if span is None else f"{'I' if number else 'B'}-{span.label}")
    return starts, ends, tags


def is_inside_word(text: str, at: int) -> bool:
    """Return whether the characters on both sides of an offset are letters or digits."""
    return 0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum()


def _sections(text: str, spans: Sequence[LabelledSpan]) -> Iterator[tuple[int, int, LabelledSpan | None]]:
    """Yield start, end and span of all parts of a text, those between the spans too."""
    position = 0
    for span in spans:
        yield position, span.start, None
        yield span.start, span.end, span
        position = span.end
    yield position, len(text), None


def _read_span(item: Any, text: str, role: str) -> LabelledSpan:
    start, end, label = _parts(item)
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if type(start) is not int or type(end) is not int or not isinstance(label, str):
        raise RowError(f"{role} has something that is not a span: start, end and one label")
    if not 0 <= start < end <= len(text):
        raise RowError("a span is outside of its text, or empty")
    marked = text[start:end]
    if isinstance(item, Mapping) and isinstance(item.get("text"), str) and item["text"].split() != marked.split():
        raise RowError("the text of a span is not what its offsets, counted in Unicode characters, cut out of the text")
    if not marked.strip() or not label.strip():
        raise RowError("a span has no label, or has only white space")
    start += len(marked) - len(marked.lstrip())
    return LabelledSpan(start, start + len(marked.strip()), check_unicode(label.strip(), role))


def _parts(item: Any) -> tuple[Any, Any, Any]:
    """Return start, end and label of a span, None where it has none."""
    if isinstance(item, Mapping):
        start, end, label = (
            next((item[name] for name in names if name in item), None) for names in (_STARTS, _ENDS, _LABELS)
        )
        return start, end, label
    if isinstance(item, Sequence) and not isinstance(item, str) and len(item) == 3:
        return item[0], item[1], item[2]
    return None, None, None
