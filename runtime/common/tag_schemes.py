"""Schemes of tags: which tags begin, continue and end a span, by their names.

| scheme | tags of a span of one word | of three words |
|---|---|---|
| BIO | `B-X` | `B-X I-X I-X` |
| BIOES, BILOU, BMES | `S-X`, `U-X`, `W-X` | `B-X I-X E-X`, with `L` for the end and `M` for the middle |
| IO | `I-X` | `I-X I-X I-X` |
| names without positions | `X` | `X X X` |

The position may be in either case, in front of the label or behind it, with any sign between: `b_x`, `X-B`. `O`, in
either case, is outside of every span.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_STYLES = (
    re.compile(r"(?P<position>[BIMELSUW])(?:\W|_)(?P<label>.+)", re.IGNORECASE | re.DOTALL),
    re.compile(r"(?P<label>.+)(?:\W|_)(?P<position>[BIMELSUW])", re.IGNORECASE | re.DOTALL),
)
"""Tags with a position in front of the label, or behind it."""

_POSITION_ALONE = re.compile(r"[BIMELSUW]", re.IGNORECASE)
_OF_SPECIAL_TOKENS = re.compile(r"\[.+\]|<.+>|PAD|X", re.IGNORECASE)
"""Names that some checkpoints have for tokens such as `[CLS]`, beside tags with positions."""


class TagSchemeError(ValueError):
    """Tags are of no known scheme; the message names them."""


@dataclass(frozen=True)
class Tag:
    """Meaning of a tag.

    Attributes:
        label: Label of the span; None outside of every span.
        begins: Whether a span begins here in any case.
        ends: Whether the span ends here in any case.
    """

    label: str | None
    begins: bool = False
    ends: bool = False

    def continues(self, before: "Tag") -> bool:
        """Return whether the tag goes on with the span of the tag before it."""
        return self.label is not None and self.label == before.label and not self.begins and not before.ends


OUTSIDE = Tag(None)


class TagScheme:
    """The scheme of some tags, which is found in their names.

    >>> TagScheme(["O", "b-loc", "i-loc"]).tags["b-loc"]
    Tag(label='loc', begins=True, ends=False)
    >>> TagScheme(["O", "S-LOC", "B-LOC"]).split("S-LOC", 3)
    ['B-LOC', 'I-LOC', 'E-LOC']

    Attributes:
        tags: Meaning of each tag by its name.
    """

    def __init__(self, names: Iterable[str]) -> None:
        """Find the scheme.

        Raises:
            TagSchemeError: Some tags have a position and some have none, or a tag is a position alone.
        """
        names = list(dict.fromkeys(names))
        inside = [name for name in names if name.upper() != "O"]
        style = _find_style(inside)
        matches = {name: style.fullmatch(name) if style else None for name in inside}
        self._positions = {name: match.span("position") for name, match in matches.items() if match}
        letters = {self._letter(name) for name in self._positions}
        self._middle = "M" if "M" in letters and "I" not in letters else "I"
        self._end = "L" if letters & set("LU") else "E" if letters & set("ESW") else ""
        self.tags = dict.fromkeys(names, OUTSIDE)
        self.tags |= {name: Tag(name) for name in inside if not style}
        self.tags |= {name: _tag(match["position"], match["label"]) for name, match in matches.items() if match}

    @property
    def labels(self) -> set[str]:
        """Labels of the spans."""
        return {tag.label for tag in self.tags.values() if tag.label is not None}

    def split(self, name: str, count: int) -> list[str]:
        """Return the tags of the parts of a word, so that they make the same span as the word.

        Args:
            name: Tag of the word.
            count: Number of its parts, at least 1.
        """
        if count == 1 or name not in self._positions:
            return [name] * count
        letter = self._letter(name)
        first = "B" if letter in "BSUW" else self._middle
        last = self._end if letter in "SUWEL" else self._middle
        middle = self._with_position(name, self._middle)
        return [self._with_position(name, first), *[middle] * (count - 2), self._with_position(name, last)]

    def _letter(self, name: str) -> str:
        return name[slice(*self._positions[name])].upper()

    def _with_position(self, name: str, letter: str) -> str:
        start, end = self._positions[name]
        return name[:start] + (letter.lower() if name[start].islower() else letter) + name[end:]


def _find_style(names: Sequence[str]) -> "re.Pattern[str] | None":
    """Return how the tags have their positions; None if they have none.

    A name such as `E-MAIL` or `U-BAHN` has a position only if others begin or continue spans, or if all have `S` or
    all have `U`.
    """
    if names and all(map(_POSITION_ALONE.fullmatch, names)):
        raise TagSchemeError(
            f"the tags {', '.join(names)} have positions, but no label; add one to each, such as {names[0]}-NAME"
        )
    styles = [style for style in _STYLES if _has_positions([style.fullmatch(name) for name in names])]
    for style in styles:
        if not _without_position(style, names):
            return style
    if styles:
        unfit = _without_position(styles[0], names)[0]
        raise TagSchemeError(
            f"the tags {next(filter(styles[0].fullmatch, names))} and {unfit} are not of one scheme: either every tag "
            "but O has a position (B, I, E, S, L, U or M) in front of its label or behind it, as in B-LOC, or none has "
            "one; rename the tags"
        )
    return None


def _has_positions(matches: "Sequence[re.Match[str] | None]") -> bool:
    """Return whether some tags begin or continue spans, or all are spans of one word."""
    letters = {match["position"].upper() for match in matches if match}
    return bool(letters & {"B", "I"}) or (all(matches) and letters in ({"S"}, {"U"}))


def _without_position(style: "re.Pattern[str]", names: Sequence[str]) -> list[str]:
    return [name for name in names if not style.fullmatch(name) and not _OF_SPECIAL_TOKENS.fullmatch(name)]


def _tag(position: str, label: str) -> Tag:
    return Tag(label, begins=position.upper() in "BSUW", ends=position.upper() in "ELSUW")
