"""Turn the rows of labelled files into examples: one parser for training and for evaluation.

Each kind of labelled data is a `RowSchema`: its columns, with the names that they have by convention, and the function
that makes an example of a row. `find_columns` maps roles to the names of a file, with `--column ROLE=NAME` in place of
the conventions; `Problems` collects everything that is wrong with the data.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from encort.runtime.common.errors import DatasetError, InputError
from encort.runtime.common.labelled_cells import (
    answer_texts_cell,
    answers_cell,
    follows_cell,
    label_cell,
    labels_cell,
    optional_cell,
    read_cells,
    score_cell,
    tags_cell,
    text_cell,
    tokens_cell,
)
from encort.runtime.common.tables.conll import join_tokens
from encort.runtime.common.tables.lines import Row

Example = dict[str, Any]
"""Checked values of one row; the right answer is in `label`."""

MAX_SHOWN_ROWS = 20


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


@dataclass(kw_only=True)
class Problems:
    """Everything that is wrong with labelled data, collected so that it is told at once.

    Attributes:
        use: What is done with the data, for the first line of the message.
        option: Option that names a column, for messages.
    """

    use: Literal["trained", "evaluated"] = "trained"
    option: str = "--column"
    _rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    _other: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Add a problem that does not belong to a row."""
        self._other.append(problem)

    def add_row(self, name: str, number: int, *problems: str) -> None:
        """Add problems of one row.

        Args:
            name: Name of the file or split.
            number: Number of the row, from 1.
            problems: Problems; a problem has the same words in every row.
        """
        for problem in problems:
            self._rows[f"{name}: {problem}"].append(number)

    def __bool__(self) -> bool:
        """Return whether there is any problem."""
        return bool(self._rows or self._other)

    def check(self) -> None:
        """Refuse the data if there is any problem.

        Raises:
            DatasetError: With all problems, one a line.
        """
        lines = [*self._other, *(f"{problem}: {_show_rows(numbers)}" for problem, numbers in self._rows.items())]
        if lines:
            raise DatasetError(f"this cannot be {self.use} on:\n  " + "\n  ".join(lines))


def _show_rows(numbers: Sequence[int]) -> str:
    more = len(numbers) - MAX_SHOWN_ROWS
    shown = ", ".join(map(str, numbers[:MAX_SHOWN_ROWS]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"


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


_TEXT = Column(role="text", names=["text"])
_TEXT_PAIR = Column(role="text_pair", names=["text_pair"])
_OPTIONAL_PAIR = Column(role="text_pair", names=["text_pair"], is_optional=True)
_TEXT_CELLS = {"text": text_cell, "text_pair": optional_cell(text_cell)}

TEXT_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["label_text", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=label_cell),
)
"""A text, or two, with the name of one label."""

MULTI_LABEL_CLASSIFICATION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["labels", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=labels_cell),
)
"""A text, or two, with a list of labels."""

TEXT_REGRESSION = RowSchema(
    columns=[_TEXT, _OPTIONAL_PAIR, Column(role="label", names=["score", "label"], or_remaining=True)],
    parse=functools.partial(read_cells, **_TEXT_CELLS, label=score_cell),
)
"""A text, or two, with a number."""

NEXT_SENTENCE = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["label", "label_text"], or_remaining=True)],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=follows_cell),
)
"""Two texts; the label is 1 if the second follows, 0 if not, -1 if it is unknown."""

SENTENCE_PAIRS = RowSchema(
    columns=[_TEXT, _TEXT_PAIR, Column(role="label", names=["score", "label"], is_optional=True)],
    parse=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=optional_cell(score_cell)),
)
"""Two texts with their similarity; None where the table has no such column, which means that they are alike."""


def token_classification(*, characters: bool, any_scheme: bool = False) -> RowSchema:
    """Return the schema of tokens with a tag each.

    An example has `text`, the offsets `starts` and `ends` of the tokens in it, and the tags in `label`.

    Args:
        characters: The tokens are characters; see `join_tokens`.
        any_scheme: Also accept tags of other schemes than BIO.
    """
    return RowSchema(
        columns=[
            Column(role="tokens", names=["tokens", "words"]),
            Column(role="label", names=["tags", "ner_tags", "labels"]),
        ],
        parse=functools.partial(_parse_tagged_tokens, characters=characters, any_scheme=any_scheme),
    )


def _parse_tagged_tokens(values: Mapping[str, Any], *, characters: bool, any_scheme: bool) -> Example:
    cells = read_cells(values, tokens=tokens_cell, label=functools.partial(tags_cell, any_scheme=any_scheme))
    text, starts = join_tokens(cells["tokens"], characters=characters)
    ends = [start + len(token) for start, token in zip(starts, cells["tokens"], strict=True)]
    return {"text": text, "starts": starts, "ends": ends, "label": cells["label"]}


def _parse_located_answers(values: Mapping[str, Any]) -> Example:
    cells = read_cells(values, question=text_cell, context=text_cell, label=answers_cell)
    answers = cells.pop("label")
    return {**cells, "label": [text for text, _ in answers], "starts": [start for _, start in answers]}


_QUESTION_COLUMNS = (
    Column(role="question", names=["question"]),
    Column(role="context", names=["context"]),
    Column(role="label", names=["answers", "answer"]),
    Column(role="answer_start", names=["answer_start"], is_optional=True),
)

LOCATED_ANSWERS = RowSchema(columns=_QUESTION_COLUMNS, parse=_parse_located_answers)
"""A question, its context, and the right answers in `label` with their offsets in `starts`, as training needs them."""

ANSWER_TEXTS = RowSchema(
    columns=_QUESTION_COLUMNS,
    parse=functools.partial(read_cells, question=text_cell, context=text_cell, label=answer_texts_cell),
)
"""A question, its context, and the texts of the right answers; no answers mean that it has none in the context."""
