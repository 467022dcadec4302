"""Labelled tables to datasets, checked before anything is trained."""

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.errors import DatasetError

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

    Raises:
        DatasetError: A file or column is missing, or rows cannot be used; all of them are listed.
    """
    columns = (text_column, label_column)
    rows = _read(train, *columns)
    held_out = None if validation is None else _read(validation, *columns)
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
    if not file.is_file():
        raise DatasetError(f"there is no file {file}")
    table = _load_table(file)
    text = _column(file, table.column_names, text_column, ["text"])
    rest = [name for name in table.column_names if name != text]
    label = _column(file, table.column_names, label_column, [*LABEL_COLUMNS, *(rest if len(rest) == 1 else [])])
    chosen = datasets.Dataset.from_dict({"text": table[text], "label": table[label]})
    return chosen.cast(datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("string")}))


def _load_table(file: Path) -> datasets.Dataset:
    formats = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".parquet": "parquet"}
    kind = formats.get(file.suffix.lower())
    if kind is None:
        raise DatasetError(f"{file} has an unknown ending; use one of {', '.join(formats)}")
    options = _csv_options(file) if kind == "csv" else {}
    try:
        return datasets.load_dataset(kind, data_files=str(file), split="train", **options)
    except Exception as error:  # datasets wraps whatever its readers raise
        cause = error.__cause__ or error
        raise DatasetError(f"{file} cannot be read: {cause}") from error


def _csv_options(file: Path) -> dict[str, Any]:
    """Every column a string: pandas would read "NA" as missing and "007" as a number."""
    dialect: dict[str, Any] = {"sep": ","}
    if file.suffix.lower() == ".tsv":
        dialect = {"sep": "\t", "quoting": csv.QUOTE_NONE}
    quoting = {"quoting": dialect["quoting"]} if "quoting" in dialect else {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            header = next(csv.reader(lines, delimiter=dialect["sep"], **quoting), [])
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file} is not UTF-8 ({error}); convert it first") from error
    if not header:
        raise DatasetError(f"{file} is empty; its first line must name the columns")
    features = datasets.Features({name: datasets.Value("string") for name in header})
    return {**dialect, "features": features, "keep_default_na": False, "encoding": "utf-8-sig"}


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
    if len(rows) == 0:
        return [f"{file} has no rows"]
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
    names = set(labels)
    numeric = all(re.fullmatch(r"-?\d+", name) for name in names)
    return sorted(names, key=int) if numeric else sorted(names)


def _index(rows: datasets.Dataset, labels: list[str]) -> datasets.Dataset:
    return rows.cast_column("label", datasets.ClassLabel(names=labels))


def _split(rows: datasets.Dataset, labels: list[str], share: float, seed: int) -> LabelledTexts:
    rarest, count = min(Counter(rows["label"]).items(), key=lambda item: item[1])
    if count < 2 or len(rows) * share < len(labels):
        raise DatasetError(
            f"too few rows to hold a validation set back ({len(rows)} rows, {len(labels)} labels, "
            f"{count} of {labels[rarest]!r}); pass one with --validation"
        )
    parts = rows.train_test_split(share, seed=seed, stratify_by_column="label")
    return LabelledTexts(train=parts["train"], validation=parts["test"], labels=labels)
