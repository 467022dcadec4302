"""JSON: one value per line, or one file with a list of records, with columns, or in SQuAD's form."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from encort.runtime.common.errors import InputError
from encort.runtime.common.files import parse_json
from encort.runtime.common.tables.label_studio import is_label_studio, label_studio_rows
from encort.runtime.common.tables.lines import UTF16, Row, check_text, is_utf16, open_lines
from encort.runtime.common.tables.squad import is_squad, squad_rows

LARGEST_FILE = 2**30
"""Most bytes of a .json file, which is read as a whole."""
_BEGINNING = 2
"""Bytes at the beginning of JSON that show its encoding."""

_FORMS: Sequence[tuple[str, Callable[[Any], bool], Callable[[Any], Iterator[Row]]]] = [
    ("SQuAD", is_squad, squad_rows),
    ("Label Studio", is_label_studio, label_studio_rows),
]
"""Forms of JSON files: name, test, and rows of the content."""


def scan_json_lines(file: Path) -> Iterator[Row | InputError]:
    """Yield the rows of a file with one JSON value per line; see `scan_rows`. Empty lines are skipped."""
    with open_lines(file) as lines:
        for line in lines:
            if line.strip():
                yield lines.error() or _parse_line(line, lines.location)


def read_json(file: Path) -> Iterator[Row | InputError]:
    """Yield the rows of a JSON file; see `scan_rows`.

    It holds a list of records, which may have the name `data`; or one record; or columns by name, as lists or as
    objects by the number of the row; or questions in SQuAD's form; or tasks of Label Studio. JSON lines are read too.

    Raises:
        InputError: The content has another form, or is not JSON.
    """
    text = _read_text(file)
    try:
        content = parse_json(text)
    except json.JSONDecodeError as error:
        if error.msg != "Extra data":  # a second value: JSON lines
            raise InputError(f"{file} is not JSON: {error}") from error
        yield from scan_json_lines(file)
        return
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    for name, is_form, rows in _FORMS:
        if is_form(content):
            try:
                yield from rows(content)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise InputError(f"{file} is not JSON as {name} has it: {error!r}") from error
            return
    yield from map(_as_row, _find_records(content, file))


def _read_text(file: Path) -> str:
    with file.open("rb") as stream:
        content = stream.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise InputError(
            f"{file} has more than {LARGEST_FILE:,} bytes, and .json is read as a whole; save it as .jsonl, with one "
            "object per line"
        )
    check_text(content, str(file))
    if is_utf16(content[:_BEGINNING]):
        raise InputError(f"{file} is not UTF-8, but {UTF16}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 ({error}); convert it first") from error


def _find_records(content: Any, file: Path) -> Sequence[Any]:
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, dict):
        content = [content] if _is_record(content) else _join_columns(content)
    if not isinstance(content, list):
        raise InputError(
            f'{file} has no rows: expected a list of objects, such as [{{"text": ...}}, ...], which may have the name '
            "data; or one such object; or an object of columns of one length; or SQuAD's form"
        )
    return content


def _is_record(content: dict[str, Any]) -> bool:
    """Return whether an object is one row, and not columns: some value is neither a list nor an object."""
    return not all(isinstance(value, list | dict) for value in content.values())


def _join_columns(columns: dict[str, Any]) -> list[dict[str, Any]] | None:
    """Return the rows of columns, as pandas writes them: lists, or objects by the number of the row."""
    by_number = [dict(enumerate(column)) if isinstance(column, list) else column for column in columns.values()]
    if not all(isinstance(column, dict) for column in by_number) or len({tuple(column) for column in by_number}) != 1:
        return None
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.values() for c in by_number), strict=True)]


def _parse_line(line: str, location: str) -> Row | InputError:
    try:
        return _as_row(parse_json(line))
    except ValueError as error:
        return InputError(f"{location} is not JSON: {error}")


def _as_row(value: Any) -> Row:
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], dict):
        return {"text": value[0], **value[1]}  # as spaCy writes a text with its entities
    return value if isinstance(value, dict) else {"text": value}
