"""Rows to checked examples, by columns whose names are found by convention."""

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from encort.runtime.common.errors import DatasetError, EncortError, InputError
from encort.runtime.common.tables import Row
from encort.training.data.cells import RowError
from encort.training.data.problems import Problems
from encort.training.data.sources import Source

Example = dict[str, Any]


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


def find_columns(
    source: Source, schema: Schema, problems: Problems, *, asked: Mapping[str, str]
) -> dict[str, str] | None:
    """Names of a source's columns by role.

    Args:
        problems: Columns that are not there are added to them.
        asked: Names of columns by role, instead of the conventions.

    Returns:
        None where there is nothing that could be checked further.
    """
    try:
        have = source.column_names()
    except InputError as error:
        problems.add(str(error))
        return None
    if not have:
        problems.add(f"{source.name} has no rows")
        return None
    found: dict[str, str] = {}
    missing = []
    for column in schema.columns:
        wanted = [asked[column.role]] if column.role in asked else column.names
        rest = [name for name in have if name not in found.values()]
        match = next((name for name in wanted if name in have), None)
        if match is None and column.or_the_rest and column.role not in asked and len(rest) == 1:
            match = rest[0]
        if match is not None:
            found[column.role] = match
        elif not column.optional or column.role in asked:
            missing.append(f"{' or '.join(map(repr, wanted))} (--column {column.role}=NAME)")
    if missing:
        problems.add(f"{source.name} has no column {', nor '.join(missing)}; it has: {', '.join(have)}")
    return None if missing else found


def check_roles(schema: Schema, asked: Mapping[str, str], problems: Problems) -> None:
    roles = [column.role for column in schema.columns]
    for role in asked:
        if role not in roles:
            problems.add(f"--column {role}=...: this task has no such column, but {', '.join(roles)}")


def read_examples(
    source: Source, schema: Schema, problems: Problems, *, names: Mapping[str, str], key: str
) -> datasets.Dataset | None:
    """Examples of one split, memory-mapped from the cache of `datasets`.

    Args:
        problems: Rows that are no examples are added to them.
        names: Of columns by role.
        key: Another one where the same rows are other examples.

    Returns:
        None where the source could not be read to its end.
    """
    try:
        rows = _converted(source, schema, names, key)
    except datasets.exceptions.DatasetGenerationError as error:  # hides what the reader said
        if not isinstance(error.__cause__, EncortError):
            raise
        problems.add(str(error.__cause__))
        return None
    for number, found in enumerate(rows["problems"], start=1):
        for problem in found:
            problems.add_row(source, problem, number)
    return rows.remove_columns("problems")


def by_role(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    return {role: row.get(name) for role, name in names.items()}


def hold_back(rows: datasets.Dataset, share: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Rows to train on and rows to validate by.

    Of every label alike, where there are rows enough; questions of one context stay together.

    Raises:
        DatasetError: There are too few rows.
    """
    if len(rows) < 10:
        raise DatasetError(f"{len(rows)} rows are too few to hold some back for validation; pass --validation")
    if "context" in rows.features:
        contexts = np.random.default_rng(seed).permutation(sorted(set(rows["context"])))
        kept_back = set(contexts[: math.ceil(share * len(contexts))])
        is_back = np.array([context in kept_back for context in rows["context"]])
        if not is_back.all():
            return rows.select(np.flatnonzero(~is_back)), rows.select(np.flatnonzero(is_back))
    label = rows.features["label"]
    if isinstance(label, datasets.Value) and label.dtype == "string":
        counts = Counter(rows["label"])
        if min(counts.values()) > 1 and len(rows) * share >= len(counts):
            marked = rows.add_column("stratum", rows["label"][:]).class_encode_column("stratum")
            parts = marked.train_test_split(share, seed=seed, stratify_by_column="stratum").remove_columns("stratum")
            return parts["train"], parts["test"]
    parts = rows.train_test_split(share, seed=seed)
    return parts["train"], parts["test"]


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


def _converted(source: Source, schema: Schema, names: Mapping[str, str], key: str) -> datasets.Dataset:
    features = datasets.Features({**schema.features, "problems": datasets.List(datasets.Value("string"))})
    content = f"{key} {source.version} {sorted(names.items())} {source.header} {code_version()}"
    found: datasets.Dataset = datasets.Dataset.from_generator(
        _generate,
        features=features,
        gen_kwargs={"source": source, "schema": schema, "names": dict(names)},
        fingerprint=hashlib.sha256(content.encode()).hexdigest()[:16],
    )
    return found


def _generate(source: Source, schema: Schema, names: Mapping[str, str]) -> Iterator[Example]:
    for row in source.rows():
        try:
            yield {**schema.example(by_role(row, names)), "problems": []}
        except RowError as error:
            yield {**schema.nothing, "problems": list(error.args)}


@functools.cache
def code_version() -> str:
    """Another one for other code, so that nothing is taken from the cache that this code would not make."""
    hashed = hashlib.sha256(version("tokenizers").encode())
    for room in ("training", "runtime"):
        for file in sorted(Path(str(find_spec(f"encort.{room}").origin)).parent.rglob("*.py")):  # type: ignore[union-attr]
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]
