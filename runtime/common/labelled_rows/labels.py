"""Read the labels of one row: one name, several names, or whether a text follows another."""

from collections.abc import Mapping
from typing import Any

from encort.runtime.common.labelled_rows.cells import RowError, check_unicode, list_cell

LABEL_SEPARATOR = "|"
"""Separator of labels in one text, as in a cell of a CSV or TSV file."""

FOLLOWS: Mapping[str, int] = {"1": 1, "true": 1, "is_next": 1, "0": 0, "false": 0, "not_next": 0, "-1": -1}
"""Labels of next-sentence prediction: 1 if the second text follows, 0 if not, -1 if it is unknown."""


def label_cell(values: Mapping[str, Any], role: str) -> str:
    """Return the name of a label; whole numbers and truth values are names too."""
    value = values.get(role)
    if isinstance(value, bool | int):
        return str(value)
    if value is None or not str(value).strip():
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text or a whole number")
    return check_unicode(value.strip(), role)


def labels_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return several labels, or none: a list, or one text such as `card|pin`."""
    labels = values.get(role)
    if isinstance(labels, str):
        labels = labels.split(LABEL_SEPARATOR)
    return [name.strip() for name in list_cell({role: labels}, role) if name.strip()]


def follows_cell(values: Mapping[str, Any], role: str) -> int:
    """Return 1 if the second text follows the first, 0 if not, -1 if it is unknown."""
    label = label_cell(values, role).lower()
    if label not in FOLLOWS:
        raise RowError(f"{role} is none of {', '.join(FOLLOWS)}")
    return FOLLOWS[label]
