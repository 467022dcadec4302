"""Where labelled rows come from: a file, a folder with splits, or the hub."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.common.errors import DatasetError
from encort.runtime.common.folders import is_missing_folder
from encort.runtime.common.tables import READERS, Row, is_table, read_rows

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows of one split.

    Attributes:
        name: For messages.
        version: Another one for other content.
        file: Where they are, or None.
        dataset: The same, of a folder or the hub.
        header: Names of the columns, for a .csv or .tsv file that does not begin with them.
    """

    name: str
    version: str
    file: Path | None = None
    dataset: datasets.Dataset | None = None
    header: Sequence[str] | None = None

    def column_names(self) -> list[str]:
        """Of the rows; in JSON lines each row may have its own."""
        if self.dataset is not None:
            return list(self.dataset.column_names)
        rows = self.rows()
        if self.file is not None and self.file.suffix.lower() == ".jsonl":
            return list(dict.fromkeys(name for row in rows for name in row))
        return list(next(rows, {}))

    def rows(self) -> Iterator[Row]:
        """Rows as column names to values; what `datasets` calls a class label is its name.

        Raises:
            EncortError: The file is not what its ending says.
        """
        if self.file is not None:
            return read_rows(self.file, header=self.header)
        assert self.dataset is not None
        decode = {name: _decoder(feature) for name, feature in self.dataset.features.items()}
        return ({name: decode[name](value) for name, value in row.items()} for row in self.dataset)


def find_sources(
    train: str, *, validation: str | None = None, test: str | None = None, header: Sequence[str] | None = None
) -> dict[str, Source]:
    """The splits to train on, to choose the best weights by, and to report on, as far as there are any.

    Args:
        train: A file; or a folder or hub id with a split `train`, whose other splits are taken as well.
        validation: The same, in place of its split.
        test: The same.
        header: See `Source`.

    Raises:
        DatasetError: One of them is not there, or has no such split.
    """
    found = _open(train, "train", header)
    for split, name in (("validation", validation), ("test", test)):
        if name is not None:
            opened = _open(name, split, header)
            if split not in opened and set(opened) != {"train"}:
                raise DatasetError(f"{name} has no split {split}; it has: {', '.join(opened)}")
            found[split] = opened.get(split, opened["train"]) if "train" in opened else opened[split]
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _open(name: str, split: str, header: Sequence[str] | None) -> dict[str, Source]:
    path = Path(name)
    if path.is_dir():
        # Parquet may say more of its columns than their types, which `datasets` knows to read.
        files = [f for f in sorted(path.iterdir()) if f.stem in _SPLITS and is_table(f) and f.suffix != ".parquet"]
        found = {_SPLITS[file.stem]: _file(file, header) for file in files}
        if len(found) < len(files):
            raise DatasetError(f"{name} has several files for one split: {', '.join(file.name for file in files)}")
        return _with_split(found, split, name) if found else _loaded(name, split)
    if is_table(path):
        if not path.is_file():
            raise DatasetError(f"there is no file {name}")
        return {split: _file(path, header)}
    if path.is_file() or is_missing_folder(name):
        raise DatasetError(
            f"{name} is no folder, nor a file of labelled data by its ending ({', '.join(READERS)}), nor could it be a "
            "hub id"
        )
    return _loaded(name, split)


def sha256(file: Path) -> str:
    """SHA-256 of the content."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _file(file: Path, header: Sequence[str] | None) -> Source:
    return Source(name=str(file), version=sha256(file), file=file, header=header)


def _loaded(name: str, wanted: str) -> dict[str, Source]:
    """Splits of a dataset of the hub, or of a folder as `datasets` reads it; `NAME:CONFIGURATION` of several."""
    path, _, configuration = name.partition(":")
    try:
        loaded = datasets.load_dataset(path, configuration or None)
    except Exception as error:  # whatever datasets and the network raise
        reason = error.__cause__ or error
        raise DatasetError(f"{name} is no folder of splits, nor a dataset that the hub gives: {reason!r}") from error
    found = {
        _SPLITS.get(str(split), str(split)): Source(name=f"{name} ({split})", version=rows._fingerprint, dataset=rows)
        for split, rows in loaded.items()
        if not _hides_labels(rows)
    }
    return _with_split(found, wanted, name)


def _with_split(found: dict[str, Source], wanted: str, name: str) -> dict[str, Source]:
    if wanted not in found and "train" not in found:
        raise DatasetError(f"{name} has no split {wanted}; it has: {', '.join(found)}")
    return found


def _hides_labels(rows: datasets.Dataset) -> bool:
    """Whether all labels are -1, as in the test splits of public benchmarks."""
    labels = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    return any(rows.unique(name) == [-1] for name in labels)


def _decoder(feature: Any) -> Callable[[Any], Any]:
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: value if value is None or value < 0 else feature.int2str(value)
    inner = getattr(feature, "feature", None)
    if isinstance(inner, datasets.ClassLabel):
        return lambda values: None if values is None else [inner.int2str(value) for value in values]
    return lambda value: value
