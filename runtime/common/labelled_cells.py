"""Read the cells of one labelled row: texts, labels, numbers, tags and answers.

Each cell function takes the values of a row by role and one role. It returns the value that it has checked, or raises
`RowError`; `read_cells` collects the problems of all cells, so that a user sees everything that is wrong with a row.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Cell = Callable[[Mapping[str, Any], str], Any]
"""Function from the values of a row and a role to the checked value; raises `RowError`."""

LABEL_SEPARATOR = "|"
"""Separator of labels in one text, as in a cell of a CSV or TSV file."""

FOLLOWS: Mapping[str, int] = {"1": 1, "true": 1, "is_next": 1, "0": 0, "false": 0, "not_next": 0, "-1": -1}
"""Labels of next-sentence prediction: 1 if the second text follows, 0 if not, -1 if it is unknown."""

_FLOAT32_MAX = (2 - 2**-23) * 2.0**127
_OTHER_SCHEMES = re.compile(r"[SELUM]-")
"""Tags of schemes that also mark single tokens and the ends of spans, such as BIOES and BILOU."""


class RowError(Exception):
    """A row cannot be used. The arguments are its problems; a problem has the same words in every row."""


def read_cells(values: Mapping[str, Any], /, **cells: Cell) -> dict[str, Any]:
    """Return the checked value of each role.

    Args:
        values: Values of a row by role.
        cells: Cell function of each role.

    Raises:
        RowError: With the problems of all cells.
    """
    checked: dict[str, Any] = {}
    problems: list[str] = []
    for role, cell in cells.items():
        try:
            checked[role] = cell(values, role)
        except RowError as error:
            problems += error.args
    if problems:
        raise RowError(*problems)
    return checked


def optional_cell(cell: Cell) -> Cell:
    """Return a cell function that gives None where the table has no such column."""
    return lambda values, role: cell(values, role) if role in values else None


def text_cell(values: Mapping[str, Any], role: str) -> str:
    """Return a text with more than white space."""
    value = values.get(role)
    if value is None or value == "":
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text")
    if not value.strip():
        raise RowError(f"{role} is empty")
    return _check_unicode(value, role)


def label_cell(values: Mapping[str, Any], role: str) -> str:
    """Return the name of a label; whole numbers and truth values are names too."""
    value = values.get(role)
    if isinstance(value, bool | int):
        return str(value)
    if value is None or not str(value).strip():
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text or a whole number")
    return _check_unicode(value.strip(), role)


def list_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return a list of texts."""
    value = values.get(role)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(f"{role} is not a list of texts")
    return [_check_unicode(item, role) for item in value]


def labels_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return several labels, or none: a list, or one text such as `card|pin`."""
    labels = values.get(role)
    if isinstance(labels, str):
        labels = labels.split(LABEL_SEPARATOR)
    return [name.strip() for name in list_cell({role: labels}, role) if name.strip()]


def score_cell(values: Mapping[str, Any], role: str) -> float:
    """Return a number that is finite as a float32."""
    value = values.get(role)
    try:
        score = float(value) if value is not None and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not abs(score) <= _FLOAT32_MAX:  # false for NaN too
        raise RowError("the score is not a number")
    return score


def follows_cell(values: Mapping[str, Any], role: str) -> int:
    """Return 1 if the second text follows the first, 0 if not, -1 if it is unknown."""
    label = label_cell(values, role).lower()
    if label not in FOLLOWS:
        raise RowError(f"{role} is none of {', '.join(FOLLOWS)}")
    return FOLLOWS[label]


def tokens_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return tokens, not all of them white space."""
    tokens = list_cell(values, role)
    _refuse_if({"no tokens": not "".join(tokens).strip(), "a token is empty": not all(tokens)})
    return tokens


def tags_cell(values: Mapping[str, Any], role: str, *, any_scheme: bool = False) -> list[str]:
    """Return one tag per token of the role `tokens`.

    Args:
        values: See `read_cells`. If the tokens are no list, their own cell reports it.
        role: Role of the tags.
        any_scheme: Also accept tags of other schemes than BIO.
    """
    tags, tokens = list_cell(values, role), values.get("tokens")
    count = len(tokens) if isinstance(tokens, list) else len(tags)
    is_other_scheme = not any_scheme and any(map(_OTHER_SCHEMES.match, tags))
    _refuse_if(
        {
            "more tags than tokens": len(tags) > count,
            "fewer tags than tokens": len(tags) < count,
            "a tag is empty": not all(tag.strip() for tag in tags),
            "tags are of another scheme than BIO: B- begins a span, I- goes on with it, O is outside": is_other_scheme,
        }
    )
    return [tag.strip() for tag in tags]


def answer_texts_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return the texts of the right answers without the white space around them; none for an unanswerable question.

    The cell holds SQuAD's `{"text": [...], "answer_start": [...]}`, a list of texts, or one text.
    """
    texts, _ = _split_answers(values, role)
    return [text.strip() for text in texts]


def answers_cell(values: Mapping[str, Any], role: str) -> list[tuple[str, int]]:
    """Return each right answer with its offset in the role `context`, without the white space around it.

    The offsets are SQuAD's `answer_start`, in the cell or in a column of that role. Without offsets, the first
    occurrence of an answer is taken. If the context is no text, its own cell reports it.
    """
    texts, start = _split_answers(values, role)
    context = values.get("context")
    context = context if isinstance(context, str) else ""
    starts = [context.find(text) for text in texts] if start is None else _read_whole_numbers(start, len(texts))
    is_there = all(at >= 0 and context.startswith(text, at) for text, at in zip(texts, starts, strict=False))
    _refuse_if(
        {
            "no answers": not texts,
            "an answer is empty": not all(text.strip() for text in texts),
            "answer_start is not a whole number for every answer": len(starts) < len(texts),
            f"an answer is not in its context{'' if start is None else ' at answer_start'}": (
                bool(context.strip()) and not is_there
            ),
        }
    )
    spaces = [len(text) - len(text.lstrip()) for text in texts]
    return [(text.strip(), at + space) for text, at, space in zip(texts, starts, spaces, strict=True)]


def _split_answers(values: Mapping[str, Any], role: str) -> tuple[list[str], Any]:
    """Return the texts, and their starts as the row has them: None, a value or a list."""
    texts: Any = values.get(role)
    start = values.get("answer_start")
    if isinstance(texts, dict):
        texts, start = texts.get("text"), texts.get("answer_start")
    if isinstance(texts, str):
        texts = [texts]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise RowError("answers is not a text, a list of texts, or text and answer_start as SQuAD has them")
    return texts, start


def _read_whole_numbers(value: Any, count: int) -> list[int]:
    """Return that many whole numbers; none where the value is something else."""
    numbers = value if isinstance(value, list) else [value]
    try:
        return [int(number) for number, _ in zip(numbers, range(count), strict=True)]
    except (TypeError, ValueError, OverflowError):
        return []


def _refuse_if(problems: Mapping[str, bool]) -> None:
    """Raise a `RowError` with the problems that are true."""
    true_problems = [problem for problem, is_true in problems.items() if is_true]
    if true_problems:
        raise RowError(*true_problems)


def _check_unicode(value: str, role: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{role} has an unpaired surrogate, so it is not Unicode") from None
    return value
