"""Cells of a row, checked: a text, a label, a list of them, a number; all problems of a row at once."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Cell = Callable[[Mapping[str, Any], str], Any]
"""What a row has for a role; raises `RowError`."""


class RowError(Exception):
    """Why a row is no example: its arguments are the problems, in the same words for all rows that have them."""


def read_cells(values: Mapping[str, Any], /, **cells: Cell) -> dict[str, Any]:
    """The cell of every role.

    Raises:
        RowError: With the problems of all of them.
    """
    found: dict[str, Any] = {}
    problems: list[str] = []
    for role, cell in cells.items():
        try:
            found[role] = cell(values, role)
        except RowError as error:
            problems += error.args
    if problems:
        raise RowError(*problems)
    return found


def refuse_if(problems: Mapping[str, bool]) -> None:
    """Raise a `RowError` with those problems that there are."""
    found = [problem for problem, is_there in problems.items() if is_there]
    if found:
        raise RowError(*found)


def optional(cell: Cell) -> Cell:
    """The cell, or None where the table has no such column."""
    return lambda values, role: cell(values, role) if role in values else None


def text_cell(values: Mapping[str, Any], role: str) -> str:
    """A text that is there and not empty."""
    value = values.get(role)
    if value is None or value == "":
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text")
    if not value.strip():
        raise RowError(f"{role} is empty")
    return _unicode(value, role)


def label_cell(values: Mapping[str, Any], role: str) -> str:
    """A label's name; whole numbers and truth values are names too."""
    value = values.get(role)
    if isinstance(value, bool | int):
        return str(value)
    if value is None or not str(value).strip():
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text or a whole number")
    return _unicode(value.strip(), role)


def list_cell(values: Mapping[str, Any], role: str) -> list[str]:
    value = values.get(role)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(f"{role} is not a list of texts")
    return [_unicode(item, role) for item in value]


def score_cell(values: Mapping[str, Any], role: str) -> float:
    """A finite number."""
    value = values.get(role)
    try:
        score = float(value) if value is not None and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not abs(score) <= float(np.finfo(np.float32).max):
        raise RowError("the score is not a number")
    return score


def _unicode(value: str, role: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{role} has an unpaired surrogate, so it is not Unicode") from None
    return value
