"""Make checked examples of labelled rows, memory-mapped from the cache of `datasets`."""

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
from encort.runtime.common.labelled_rows.cells import RowError
from encort.runtime.common.labelled_rows.columns import ColumnNames, Example, RowSchema, find_columns, values_by_role
from encort.runtime.common.labelled_rows.problems import Problems
from encort.training.data.sources import Source
from encort.training.progress import without_bars

MIN_ROWS_TO_HOLD_BACK = 10


@dataclass(frozen=True, kw_only=True)
class Schema:
    """The examples of a task.

    Attributes:
        rows: Columns of the labelled rows, and how an example is made of a row.
        features: Columns and types of the examples in the cache.
    """

    rows: RowSchema
    features: datasets.Features

    @property
    def empty_example(self) -> Example:
        """Placeholder for a row that has a problem."""
        return dict.fromkeys(self.features)


@dataclass(frozen=True, eq=False, kw_only=True)
class Examples:
    """Checked examples of every split.

    Attributes:
        train: Examples to learn from.
        validation: Examples that choose the best weights.
        test: Examples for the report, if there are any.
        labels: Names of the labels, in the order of the logits.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    test: datasets.Dataset | None = None
    labels: Sequence[str] = ()

    @property
    def splits(self) -> dict[str, datasets.Dataset]:
        """The splits that there are, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: rows for name, rows in splits.items() if rows is not None}


def find_source_columns(
    source: Source, schema: Schema, problems: Problems, *, asked: Mapping[str, str]
) -> ColumnNames | None:
    """Return the names of a source's columns by role.

    Args:
        source: Source whose rows are to be read.
        schema: Columns that are looked for.
        problems: Columns that are missing, and files that cannot be read, are added to it.
        asked: Names of columns by role that the user gave; they replace the conventions.

    Returns:
        None if the source cannot be read any further.
    """
    try:
        available = source.column_names()
    except InputError as error:
        problems.add(str(error))
        return None
    return find_columns(source.name, available, schema.rows, problems, asked=asked)


def read_examples(
    source: Source, schema: Schema, problems: Problems, *, names: ColumnNames, key: str
) -> datasets.Dataset | None:
    """Return the examples of one split, memory-mapped from the cache of `datasets`.

    Args:
        source: Source of the rows.
        schema: How an example is made of a row.
        problems: Rows that cannot be used are added to it.
        names: Names of the columns by role.
        key: Part of the cache key. If the same rows can become other examples, they need another key.

    Returns:
        None if the source could not be read to its end.
    """
    try:
        rows = _read_cached(source, schema, names, key)
    except datasets.exceptions.DatasetGenerationError as error:  # hides what the reader said
        if not isinstance(error.__cause__, EncortError):
            raise
        problems.add(str(error.__cause__))
        return None
    for number, problems_of_row in enumerate(rows["problems"], start=1):
        problems.add_row(source.name, number, *problems_of_row)
    return rows.remove_columns("problems")


def hold_back(rows: datasets.Dataset, share: float, seed: int) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Split rows into those to train on and those to validate on.

    Each label gives its share, where there are enough rows. All questions about one context stay together.

    Args:
        rows: Examples of the training split.
        share: Share of the rows to hold back.
        seed: Seed of the choice.

    Raises:
        DatasetError: There are too few rows.
    """
    if len(rows) < MIN_ROWS_TO_HOLD_BACK:
        raise DatasetError(f"{len(rows)} rows are too few to hold some back for validation; pass --validation")
    if "context" in rows.features:
        contexts = np.random.default_rng(seed).permutation(sorted(set(rows["context"])))
        held_back = set(contexts[: math.ceil(share * len(contexts))])
        is_held_back = np.array([context in held_back for context in rows["context"]])
        if not is_held_back.all():
            return rows.select(np.flatnonzero(~is_held_back)), rows.select(np.flatnonzero(is_held_back))
    label = rows.features["label"]
    if isinstance(label, datasets.Value) and label.dtype == "string":
        counts = Counter(rows["label"])
        if min(counts.values()) > 1 and len(rows) * share >= len(counts):
            with without_bars():
                marked = rows.add_column("stratum", rows["label"][:]).class_encode_column("stratum")
            parts = marked.train_test_split(share, seed=seed, stratify_by_column="stratum").remove_columns("stratum")
            return parts["train"], parts["test"]
    parts = rows.train_test_split(share, seed=seed)
    return parts["train"], parts["test"]


def sort_labels(names: Sequence[str]) -> list[str]:
    """Return the distinct names, sorted; by value if all are whole numbers."""
    are_numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return sorted(set(names), key=int if are_numbers else None)


def check_labels(
    rows: datasets.Dataset,
    source: Source,
    labels: Sequence[str],
    problems: Problems,
    names_of: Callable[[Any], Sequence[str]],
) -> None:
    """Add the labels that the training data lacks to the problems.

    Args:
        rows: Examples of another split.
        source: Source of these examples.
        labels: Labels of the training data.
        problems: Problems to add to.
        names_of: Gives the names of labels in a value of the column `label`.
    """
    known = set(labels)
    for number, value in enumerate(rows["label"], start=1):
        for label in names_of(value):
            if label not in known:
                problems.add_row(source.name, number, f"label {label!r} is not in the training data")


def _read_cached(source: Source, schema: Schema, names: ColumnNames, key: str) -> datasets.Dataset:
    features = datasets.Features({**schema.features, "problems": datasets.List(datasets.Value("string"))})
    content = f"{key} {source.version} {sorted(names.items())} {source.header} {code_version()}"
    rows: datasets.Dataset = datasets.Dataset.from_generator(
        _generate,
        features=features,
        gen_kwargs={"source": source, "schema": schema, "names": dict(names)},
        fingerprint=hashlib.sha256(content.encode()).hexdigest()[:16],
    )
    return rows


def _generate(source: Source, schema: Schema, names: ColumnNames) -> Iterator[Example]:
    for row in source.rows():
        try:
            yield {**schema.rows.parse(values_by_role(row, names)), "problems": []}
        except RowError as error:
            yield {**schema.empty_example, "problems": list(error.args)}


@functools.cache
def code_version() -> str:
    """Return a hash of the code that makes examples, so that the cache never gives what other code has made."""
    hashed = hashlib.sha256(version("tokenizers").encode())
    for room in ("training", "runtime"):
        for file in sorted(Path(str(find_spec(f"encort.{room}").origin)).parent.rglob("*.py")):  # type: ignore[union-attr]
            hashed.update(file.read_bytes())
    return hashed.hexdigest()[:16]
