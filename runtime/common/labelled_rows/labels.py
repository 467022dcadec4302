"""Read the labels of one row: one name, several names, or whether a text follows another.

Labels have the forms that files have them in: a name; a number of a class; a list of these; a truth value for each
label, as in a table with one column per label; or one number for each label, which is 0 or 1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from encort.runtime.common.labelled_rows.cells import RowError, check_unicode, parse_list

LABEL_SEPARATOR = "|"
"""Separator of labels in one text, as in a cell of a CSV or TSV file."""

FOLLOWS: Mapping[str, int] = {"1": 1, "true": 1, "is_next": 1, "0": 0, "false": 0, "not_next": 0, "-1": -1}
"""Labels of next-sentence prediction: 1 if the second text follows, 0 if not, -1 if it is unknown."""

_FLAGS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}
_CHOICES = {"choices"}
"""The only name of an object that holds labels in an export of Label Studio."""


def label_cell(values: Mapping[str, Any], role: str) -> str:
    """Return the name of a label; whole numbers and truth values are names too. A list must hold one label."""
    value = values.get(role)
    if isinstance(value, str):
        value = parse_list(value)
    if not isinstance(value, Mapping | list):
        return _name(value, role)
    names = _names(value, role)
    if len(names) > 1:
        raise RowError(f"several labels in {role}: several labels per text are the task multi-label-classification")
    return names[0] if names else _name(None, role)


def labels_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return several labels, or none: in a form of this module, or one text such as `card|pin`."""
    value = values.get(role)
    if isinstance(value, str):
        value = parse_list(value)
    if isinstance(value, str):
        value = [name for name in value.split(LABEL_SEPARATOR) if name.strip()]
    if not isinstance(value, Mapping | list):
        raise RowError(f"{role} is not a list of labels")
    return list(dict.fromkeys(_names(value, role)))


def follows_cell(values: Mapping[str, Any], role: str) -> int:
    """Return 1 if the second text follows the first, 0 if not, -1 if it is unknown."""
    label = label_cell(values, role).lower()
    if label not in FOLLOWS:
        raise RowError(f"{role} is none of {', '.join(FOLLOWS)}")
    return FOLLOWS[label]


def _names(value: Mapping[str, Any] | list[Any], role: str) -> list[str]:
    """Return the names of the labels in an object or a list."""
    if isinstance(value, Mapping):
        return _names(value["choices"], role) if value.keys() == _CHOICES else _flagged(value)
    if _is_one_number_per_label(value):
        return [str(number) for number, flag in enumerate(value) if flag]
    return [_name(item, role) for item in value if item != ""]


def _name(value: Any, role: str) -> str:
    """Return one name: a text, or a whole number, which may be a float, as pandas writes it."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool | int):
        return str(value)
    if value is None or value != value or not str(value).strip():  # noqa: PLR0124 - NaN is not equal to itself
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text or a whole number")
    return check_unicode(value.strip(), role)


def _flagged(flags: Mapping[str, Any]) -> list[str]:
    """Return the names whose flags are true."""
    names = []
    for name, flag in flags.items():
        is_set = _FLAGS.get(str(flag).strip().lower())
        if is_set is None:
            raise RowError(
                f"column {name!r} is neither 0 nor 1, so it is not the column of one label: give the columns of the "
                "labels the role label, as label=NAME or label=NAME,NAME"
            )
        if is_set:
            names.append(name)
    return names


def _is_one_number_per_label(values: Sequence[Any]) -> bool:
    """Return whether a list has a 0 or 1 for every label. Two whole numbers may also be the numbers of two labels.

    Raises:
        RowError: There are two whole numbers which cannot be the numbers of two labels, but then they are ambiguous.
    """
    if not values or not all(isinstance(value, bool | int | float) and value in (0, 1) for value in values):
        return False
    if len(values) > 2 or not all(type(value) is int for value in values):
        return True
    if len(values) == 2 and values[0] == values[1]:
        raise RowError("two numbers, 0 or 1, for the labels of a text are ambiguous: give the names of labels")
    return False
