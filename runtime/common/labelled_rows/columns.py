"""Columns of labelled tables: their roles, and how they are found by conventional names or by options."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from encort.runtime.common.errors import InputError
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.tables.lines import Row

Example = dict[str, Any]
"""Checked values of one row; the right answer is in `label`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a labelled table.

    Attributes:
        role: What the column is to the task; also the name in `--column ROLE=NAME`.
        names: Names that it has by convention, the best one first.
        is_optional: Whether an example can do without it.
        or_remaining: Whether the only column without a role is taken where no name matches.
    """

    role: str
    names: Sequence[str]
    is_optional: bool = False
    or_remaining: bool = False


@dataclass(frozen=True, kw_only=True)
class RowSchema:
    """One kind of labelled rows.

    Attributes:
        columns: Columns that are read.
        parse: Makes an example of the values of a row by role; raises `RowError`.
    """

    columns: Sequence[Column]
    parse: Callable[[Mapping[str, Any]], Example]


def parse_columns(options: Iterable[str], *, option: str = "--column") -> dict[str, str]:
    """Return the names of columns by role, from options such as `text=message`.

    Raises:
        InputError: An option has another form, or two options are for one role.
    """
    names: dict[str, str] = {}
    for value in options:
        role, equals, name = value.partition("=")
        if not equals:
            raise InputError(f"{option} {value!r} is not ROLE=NAME, such as text=message")
        if role in names:
            raise InputError(f"{option} {role}= is given twice, as {names[role]!r} and {name!r}; give it once")
        names[role] = name
    return names


def parse_header(names: str) -> list[str]:
    """Return the names of columns from an option such as `text,label`."""
    return [name.strip() for name in names.split(",")]


def check_roles(schema: RowSchema, asked: Mapping[str, str], problems: Problems) -> None:
    """Add the roles that the user names and the schema lacks to the problems."""
    roles = [column.role for column in schema.columns]
    for role in asked:
        if role not in roles:
            problems.add(f"{problems.option} {role}=...: this task has no such column, but {', '.join(roles)}")


def find_columns(
    name: str, available: Sequence[str], schema: RowSchema, problems: Problems, *, asked: Mapping[str, str]
) -> dict[str, str] | None:
    """Return the names of a table's columns by role.

    Args:
        name: Name of the table, for messages.
        available: Names of its columns; none if it has no rows.
        schema: Columns that are looked for.
        problems: Columns that are missing are added to it.
        asked: Names by role that the user gave; they replace the conventions.

    Returns:
        None if a column is missing.
    """
    if not available:
        problems.add(f"{name} has no rows")
        return None
    names: dict[str, str] = {}
    missing = []
    for column in schema.columns:
        wanted = [asked[column.role]] if column.role in asked else column.names
        remaining = [other for other in available if other not in names.values()]
        match = next((other for other in wanted if other in available), None)
        if match is None and column.or_remaining and column.role not in asked and len(remaining) == 1:
            match = remaining[0]
        if match is not None:
            names[column.role] = match
        elif not column.is_optional or column.role in asked:
            missing.append(f"{' or '.join(map(repr, wanted))} ({problems.option} {column.role}=NAME)")
    if missing:
        problems.add(f"{name} has no column {', nor '.join(missing)}; it has: {', '.join(available)}")
    return None if missing else names


def values_by_role(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a row by role; None where the row lacks a column.

    Args:
        row: Values by name of the column.
        names: Names of the columns by role.
    """
    return {role: row.get(name) for role, name in names.items()}
