"""Read the cells of one labelled row: texts, lists of texts and numbers.

Each cell function takes the values of a row by role and one role. It returns the value that it has checked, or raises
`RowError`; `read_cells` collects the problems of all cells, so that a user sees everything that is wrong with a row.
"""

import ast
import contextlib
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Cell = Callable[[Mapping[str, Any], str], Any]
"""Function from the values of a row and a role to the checked value; raises `RowError`."""

_DECIMAL_COMMA = re.compile(r"[+-]?(?![1-9]\d{0,2},\d{3}$)\d+,\d+")
"""A number with a decimal comma, but not one such as 1,000, where the comma may stand between thousands."""
_FLOAT32_MAX = (2 - 2**-23) * 2.0**127


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
    return check_unicode(value, role)


def parse_list(text: str) -> Any:
    """Return the list that a cell holds as text, as JSON or Python writes it; any other text as it is.

    >>> parse_list("['card', 'pin']")
    ['card', 'pin']
    >>> parse_list("card")
    'card'
    """
    if not (text.lstrip().startswith("[") and text.rstrip().endswith("]")):
        return text
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = parse(text.strip())
            # Python joins neighbouring strings, as numpy writes them: `['card' 'pin']`. Such a text is not a list.
            if isinstance(value, list) and (parse is json.loads or repr(value) == text.strip()):
                return value
    return text


def read_list(value: Any) -> Any:
    """Return the list of a cell: a list, or a text that is one, or parts of a text with spaces between them."""
    parsed = parse_list(value) if isinstance(value, str) else value
    return parsed.split() if isinstance(parsed, str) else parsed


def list_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return a list of texts; see `read_list`."""
    value = read_list(values.get(role))
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(f"{role} is not a list of texts")
    return [check_unicode(item, role) for item in value]


def texts_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return one text or more: a text, a list of texts, or the texts of several columns."""
    value = values.get(role)
    if isinstance(value, str):
        value = parse_list(value)
    if isinstance(value, Mapping):
        value = list(value.values())
    items = value if isinstance(value, list) else [value]
    return [text_cell({role: item}, role) for item in items or [None]]


def score_cell(values: Mapping[str, Any], role: str) -> float:
    """Return a number that is finite as a float32; a text may have a decimal point or comma."""
    value = values.get(role)
    if isinstance(value, str) and _DECIMAL_COMMA.fullmatch(value.strip()):
        value = value.replace(",", ".")
    try:
        score = float(value) if value is not None and not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not abs(score) <= _FLOAT32_MAX:  # false for NaN too
        raise RowError("the score is not a number")
    return score


def refuse_if(problems: Mapping[str, bool]) -> None:
    """Raise a `RowError` with the problems that are true."""
    true_problems = [problem for problem, is_true in problems.items() if is_true]
    if true_problems:
        raise RowError(*true_problems)


def check_unicode(value: str, role: str) -> str:
    """Return the text if it is Unicode; raise a `RowError` if it has an unpaired surrogate."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RowError(f"{role} has an unpaired surrogate, so it is not Unicode") from None
    return value
