"""Read the tokens and the tags of one row, or the labelled spans of a text."""

from collections.abc import Mapping
from typing import Any

from encort.runtime.common.labelled_rows.cells import RowError, list_cell, read_list, refuse_if


def tokens_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return tokens, not all of them white space."""
    tokens = list_cell(values, role)
    refuse_if({"no tokens": not "".join(tokens).strip(), "a token is empty": not all(tokens)})
    return tokens


def tags_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """Return one tag per token of the role `tokens`.

    Args:
        values: See `read_cells`. If the tokens are no list, their own cell reports it.
        role: Role of the tags.
    """
    tokens = read_list(values.get("tokens"))
    if _are_numbers(read_list(values.get(role))):
        raise RowError(
            f"{role} is a list of numbers without names: read the Parquet files of the dataset, or its hub id, which "
            "have the names of the tags"
        )
    tags = list_cell(values, role)
    count = len(tokens) if isinstance(tokens, list) else len(tags)
    refuse_if(
        {
            "more tags than tokens": len(tags) > count,
            "fewer tags than tokens": len(tags) < count,
            "a tag is empty": not all(tag.strip() for tag in tags),
        }
    )
    return [tag.strip() for tag in tags]


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and bool(values) and all(isinstance(value, int) for value in values)
