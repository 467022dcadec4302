"""Labelled tables to datasets, checked before anything is trained."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.errors import DatasetError, InputError
from encort.runtime.tables import read_rows

LABEL_COLUMNS = ("label_text", "label")
SHOWN_PROBLEMS = 10


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelledTexts:
    """Training and validation data.

    Attributes:
        train: Columns `text` (string) and `label` (int64, index into `labels`).
        validation: The same.
        labels: Label names, sorted; by value if all are whole numbers.
    """

    train: datasets.Dataset
    validation: datasets.Dataset
    labels: list[str]


def load_labelled_texts(
    train: Path,
    validation: Path | None,
    *,
    text_column: str | None = None,
    label_column: str | None = None,
    validation_share: float = 0.1,
    seed: int,
) -> LabelledTexts:
    """Read and check labelled texts.

    Args:
        train: .csv, .tsv, .jsonl or .parquet with a text and a label a row.
        validation: The same; None holds a share of `train` back, of every label alike.
        text_column: None takes `text`.
        label_column: None takes `label_text`, else `label`, else the only column beside the text.
        validation_share: Part that is held back.
        seed: Chooses what is held back.

    Raises:
        DatasetError: A file or column is missing, or rows cannot be used; all of them are listed.
    """
    rows = _read(train, text_column, label_column)
    held_out = None if validation is None else _read(validation, text_column, label_column)
    _check(_row_problems(rows, train))
    labels = _sorted_labels(rows["label"])
    if len(labels) < 2:
        raise DatasetError(f"{train} has one label only, {labels[0]!r}; a classifier needs at least two")
    if held_out is None or validation is None:
        return _split(_index(rows, labels), labels, validation_share, seed)
    _check([*_row_problems(held_out, validation), *_unseen_labels(held_out, validation, labels)])
    return LabelledTexts(train=_index(rows, labels), validation=_index(held_out, labels), labels=labels)


def _read(file: Path, text_column: str | None, label_column: str | None) -> datasets.Dataset:
    """The table's two columns as strings, named `text` and `label`."""
    try:
        rows = read_rows(file)
        first = next(rows, None)
        if first is None:
            raise DatasetError(f"{file} has no rows")
        text = _column(file, list(first), text_column, ["text"])
        rest = [name for name in first if name != text]
        label = _column(file, list(first), label_column, [*LABEL_COLUMNS, *(rest if len(rest) == 1 else [])])
        cells = list(_cells(itertools.chain([first], rows), text, label, file))
    except InputError as error:
        raise DatasetError(str(error)) from error
    string = datasets.Value("string")
    return datasets.Dataset.from_list(cells, features=datasets.Features({"text": string, "label": string}))


def _cells(rows: Iterator[Any], text: str, label: str, file: Path) -> Iterator[dict[str, str | None]]:
    for number, row in enumerate(rows, start=1):
        yield {
            "text": _string(row.get(text), f"{file}, row {number}: {text}"),
            "label": _string(row.get(label), f"{file}, row {number}: {label}"),
        }


def _string(value: Any, place: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(value)
    raise DatasetError(f"{place} holds {value!r}, expected a text")


def _column(file: Path, have: Sequence[str], asked: str | None, candidates: Sequence[str]) -> str:
    wanted = [asked] if asked is not None else candidates
    for name in wanted:
        if name in have:
            return name
    raise DatasetError(
        f"{file} has no column {' or '.join(map(repr, wanted))}; it has: {', '.join(have)}; "
        "name it with --text-column or --label-column"
    )


def _row_problems(rows: datasets.Dataset, file: Path) -> list[str]:
    return [
        f"{file}, row {number}: no {column}"
        for number, row in enumerate(rows, start=1)
        for column in ("text", "label")
        if not (row[column] or "").strip()
    ]


def _unseen_labels(rows: datasets.Dataset, file: Path, labels: Sequence[str]) -> list[str]:
    known = set(labels)
    return [
        f"{file}, row {number}: label {label!r} is not in the training data"
        for number, label in enumerate(rows["label"], start=1)
        if label and label not in known
    ]


def _check(problems: Sequence[str]) -> None:
    if problems:
        more = len(problems) - SHOWN_PROBLEMS
        shown = [*problems[:SHOWN_PROBLEMS], *([f"and {more} more"] if more > 0 else [])]
        raise DatasetError("the data cannot be trained on:\n  " + "\n  ".join(shown))


def _sorted_labels(labels: Sequence[str]) -> list[str]:
    names = sorted(set(labels))
    numeric = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=int) if numeric else names


def _index(rows: datasets.Dataset, labels: list[str]) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=labels)})
    return datasets.Dataset.from_dict({"text": rows["text"][:], "label": rows["label"][:]}, features=features)


def _split(rows: datasets.Dataset, labels: list[str], share: float, seed: int) -> LabelledTexts:
    rarest, count = min(Counter(rows["label"]).items(), key=lambda item: item[1])
    if count < 2 or len(rows) * share < len(labels):
        raise DatasetError(
            f"too few rows to hold a validation set back ({len(rows)} rows, {len(labels)} labels, "
            f"{count} of {labels[rarest]!r}); pass one with --validation"
        )
    parts = rows.train_test_split(share, seed=seed, stratify_by_column="label")
    return LabelledTexts(train=parts["train"], validation=parts["test"], labels=labels)
