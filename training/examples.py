"""Rows to checked examples: columns by convention, and every problem of all the data at once."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.errors import DatasetError, InputError
from encort.runtime.tables import Row
from encort.training.sources import Source

SHOWN_ROWS = 20

Example = dict[str, Any]


class RowError(Exception):
    """Why a row is no example; the same words for all rows that have the problem."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table, and what it may be called.

    Attributes:
        role: What it is for a task.
        names: What it is called by convention, the best name first.
        optional: Examples can do without it.
        or_the_rest: The only column that has no other role will do.
    """

    role: str
    names: Sequence[str]
    optional: bool = False
    or_the_rest: bool = False


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What the examples of a task are.

    Attributes:
        columns: That are read.
        features: Of an example.
        example: An example from the values of a row by role; raises `RowError`.
    """

    columns: Sequence[Column]
    features: datasets.Features
    example: Callable[[Mapping[str, Any]], Example]

    @property
    def nothing(self) -> Example:
        """In place of an example, where there is a problem."""
        return dict.fromkeys(self.features)


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Checked examples of every split.

    Attributes:
        train: To learn from.
        validation: To choose the best weights by.
        test: To report on.
        labels: Names, in the order of the logits.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset | None = None
    labels: Sequence[str] = ()

    @property
    def splits(self) -> dict[str, datasets.Dataset]:
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in found.items() if rows is not None}


@dataclass
class Problems:
    """What is wrong with the data, found before anything is trained."""

    rows: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    other: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        self.other.append(problem)

    def add_row(self, source: Source, problem: str, number: int) -> None:
        self.rows[f"{source.name}: {problem}"].append(number)

    def __bool__(self) -> bool:
        return bool(self.rows or self.other)

    def check(self) -> None:
        """Refuse the data if there is any.

        Raises:
            DatasetError: All of them.
        """
        lines = [*self.other, *(f"{problem}: {_shown(numbers)}" for problem, numbers in self.rows.items())]
        if lines:
            raise DatasetError("this cannot be trained on:\n  " + "\n  ".join(lines))


def read_examples(
    source: Source, schema: Schema, problems: Problems, *, columns: Mapping[str, str]
) -> datasets.Dataset | None:
    """Examples of one split, memory-mapped from the cache of `datasets`.

    Args:
        problems: What is found wrong is added to them.
        columns: Names of columns by role, instead of the conventions.

    Returns:
        None where there is nothing that could be checked further.
    """
    try:
        first = next(source.rows(), None)
        if first is None:
            raise InputError(f"{source.name} has no rows")
        names = _resolve(schema.columns, list(first), columns, source.name)
    except InputError as error:
        problems.add(str(error))
        return None
    try:
        rows = _converted(source, schema, names)
    except datasets.exceptions.DatasetGenerationError as error:  # hides what the reader said
        problems.add(str(error.__cause__))
        return None
    for number, problem in enumerate(rows["problem"], start=1):
        if problem is not None:
            problems.add_row(source, problem, number)
    return rows.remove_columns("problem")


def hold_back(rows: datasets.Dataset, share: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on and rows to validate by; of every label alike, where each has two rows or more.

    Raises:
        DatasetError: There are too few rows.
    """
    if len(rows) < 10:
        raise DatasetError(f"{len(rows)} rows are too few to hold some back for validation; pass --validation")
    label = rows.features.get("label")
    if isinstance(label, datasets.Value) and label.dtype == "string":
        counts = Counter(rows["label"])
        if min(counts.values()) > 1 and len(rows) * share >= len(counts):
            encoded = rows.add_column("_stratum", rows["label"][:]).class_encode_column("_stratum")
            parts = encoded.train_test_split(share, seed=seed, stratify_by_column="_stratum").remove_columns("_stratum")
            return parts["train"], parts["test"]
    parts = rows.train_test_split(share, seed=seed)
    return parts["train"], parts["test"]


def text_cell(values: Mapping[str, Any], role: str) -> str:
    """A text that is there and not empty."""
    value = values.get(role)
    if value is None or value == "":
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text")
    if not value.strip():
        raise RowError(f"{role} is empty")
    return value


def label_cell(values: Mapping[str, Any], role: str = "label") -> str:
    """A label's name; whole numbers and truth values are names too."""
    value = values.get(role)
    if isinstance(value, bool | int):
        return str(value)
    if value is None or not str(value).strip():
        raise RowError(f"no {role}")
    if not isinstance(value, str):
        raise RowError(f"{role} is not a text or a whole number")
    return value.strip()


def list_cell(values: Mapping[str, Any], role: str) -> list[str]:
    value = values.get(role)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(f"{role} is not a list of texts")
    return value


def sorted_labels(names: Sequence[str]) -> list[str]:
    """By name; by value if all are whole numbers."""
    numeric = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(set(names), key=int if numeric else None)


def check_labels(
    rows: datasets.Dataset | None, source: Source, labels: Sequence[str], problems: Problems, of: Callable[[Any], Any]
) -> None:
    """Labels that the training data does not have.

    Args:
        of: The labels of a value in the column `label`.
    """
    known = set(labels)
    for number, value in enumerate([] if rows is None else rows["label"], start=1):
        for label in of(value):
            if label not in known:
                problems.add_row(source, f"label {label!r} is not in the training data", number)


def _resolve(columns: Sequence[Column], have: Sequence[str], asked: Mapping[str, str], name: str) -> dict[str, str]:
    """The column of every role that the rows have one for."""
    found: dict[str, str] = {}
    for column in columns:
        wanted = [asked[column.role]] if column.role in asked else column.names
        match = next((each for each in wanted if each in have), None)
        rest = [each for each in have if each not in found.values()]
        if match is None and column.or_the_rest and column.role not in asked and len(rest) == 1:
            match = rest[0]
        if match is not None:
            found[column.role] = match
        elif not column.optional or column.role in asked:
            raise InputError(
                f"{name} has no column {' or '.join(map(repr, wanted))}; it has: {', '.join(map(str, have))}; "
                f"name it with --column {column.role}=NAME"
            )
    return found


def _converted(source: Source, schema: Schema, names: Mapping[str, str]) -> datasets.Dataset:
    features = datasets.Features({**schema.features, "problem": datasets.Value("string")})
    key = f"{source.version} {sorted(names.items())} {features} {source.header} {code_version()}"
    found: datasets.Dataset = datasets.Dataset.from_generator(
        _generate,
        features=features,
        gen_kwargs={"source": source, "schema": schema, "names": dict(names)},
        fingerprint=hashlib.sha256(key.encode()).hexdigest()[:16],
    )
    return found


def _generate(source: Source, schema: Schema, names: Mapping[str, str]) -> Iterator[Example]:
    for row in source.rows():
        try:
            yield {**_example(row, schema, names), "problem": None}
        except RowError as error:
            yield {**schema.nothing, "problem": str(error)}


def _example(row: Row, schema: Schema, names: Mapping[str, str]) -> Example:
    return schema.example({role: row.get(name) for role, name in names.items()})


def code_version() -> str:
    """Another one for other code of this room, so that nothing is taken from the cache that it would not make."""
    hashed = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]


def _shown(numbers: Sequence[int]) -> str:
    more = len(numbers) - SHOWN_ROWS
    shown = ", ".join(map(str, numbers[:SHOWN_ROWS]))
    return f"row{'s' if len(numbers) > 1 else ''} {shown}{f' and {more} more' if more > 0 else ''}"
