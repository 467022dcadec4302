"""Columns of labelled tables: their roles, and how they are found by conventional names or by options."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from encort.runtime.common.errors import InputError
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.tables.lines import Row, list_names
from encort.runtime.common.tables.rows import SEPARATED

ColumnNames = dict[str, str | tuple[str, ...]]
"""Name of a column by role, or names of several columns, one per label."""

Example = dict[str, Any]
"""Checked values of one row; the right answer is in `label`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a labelled table.

    Attributes:
        role: What the column is to the task; also the name in `--column ROLE=NAME`.
        names: Names that it has by convention, the best one first.
        is_optional: Whether an example can do without it.
        takes_remaining: What is taken where no name matches: the column without a role if it is the only `"one"`, or
            `"all"` columns without a role.
        or_role: Role of a column that an example can have in place of this one.
    """

    role: str
    names: Sequence[str]
    is_optional: bool = False
    takes_remaining: Literal["none", "one", "all"] = "none"
    or_role: str | None = None


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
) -> ColumnNames | None:
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
    names: ColumnNames = {}
    for column in schema.columns:
        remaining = [other for other in available if other not in names.values()]
        match = _find_column(column, available, remaining, asked.get(column.role))
        if match is not None:
            names[column.role] = match
    missing = [
        f"{' or '.join(map(repr, _wanted(column, asked)))} ({problems.option} {column.role}=NAME)"
        for column in schema.columns
        if column.role not in names
        and (column.role in asked or not (column.is_optional or (column.or_role or "") in names))
    ]
    if missing:
        is_separated = name.lower().endswith(tuple(SEPARATED))
        option = problems.option.replace("column", "header")
        hint = f"; if its first line is no header, name the columns with {option}" if is_separated else ""
        problems.add(f"{name} has no column {', nor '.join(missing)}; it has: {list_names(available)}{hint}")
    return None if missing else names


def _find_column(
    column: Column, available: Sequence[str], remaining: Sequence[str], asked: str | None
) -> str | tuple[str, ...] | None:
    """Return the name of a column, or the names of one column per label; None if there is no such column."""
    wanted = column.names if asked is None else [asked]
    match = next((name for name in wanted if name in available), None)
    if match is not None:
        return match
    if asked is not None:
        several = tuple(part.strip() for part in asked.split(","))
        return several if len(several) > 1 and set(several) <= set(available) else None
    if column.takes_remaining != "none" and len(remaining) == 1:
        return remaining[0]
    return tuple(remaining) if column.takes_remaining == "all" and remaining else None


def _wanted(column: Column, asked: Mapping[str, str]) -> Sequence[str]:
    return [asked[column.role]] if column.role in asked else column.names


def values_by_role(row: Row, names: ColumnNames) -> dict[str, Any]:
    """Return the values of a row by role; None where the row lacks a column.

    Args:
        row: Values by name of the column.
        names: Names of the columns by role. A role with several columns has an object of their values by name.
    """
    return {
        role: row.get(name) if isinstance(name, str) else {part: row.get(part) for part in name}
        for role, name in names.items()
    }
