"""Where labelled rows come from: a file, a folder with splits, or the hub."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.errors import DatasetError
from encort.runtime.folders import is_missing_folder
from encort.runtime.tables import Row, is_table, read_rows

_SPLITS = {"validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "test": "test"}


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
            found[split] = opened.get(split) or opened["train"]
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def _open(name: str, split: str, header: Sequence[str] | None) -> dict[str, Source]:
    file = Path(name)
    if is_table(file) and not file.is_dir():
        if not file.is_file():
            raise DatasetError(f"there is no file {name}")
        with file.open("rb") as content:
            version = hashlib.file_digest(content, "sha256").hexdigest()
        return {split: Source(name=name, version=version, file=file, header=header)}
    if file.is_file() or is_missing_folder(name):
        raise DatasetError(
            f"{name} is no folder, nor a file of labelled data by its ending (.csv, .tsv, .jsonl, .parquet, .conll, "
            ".json), nor could it be a hub id"
        )
    return _splits(name, split)


def _splits(name: str, wanted: str) -> dict[str, Source]:
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # whatever datasets and the network raise
        raise DatasetError(f"{name} is no folder of splits, nor a dataset that the hub gives: {error!r}") from error
    found = {
        _SPLITS.get(str(split), str(split)): Source(name=f"{name} ({split})", version=rows._fingerprint, dataset=rows)
        for split, rows in loaded.items()
    }
    if wanted not in found and "train" not in found:
        raise DatasetError(f"{name} has no split {wanted}; it has: {', '.join(map(str, loaded))}")
    return found


def _decoder(feature: Any) -> Any:
    if isinstance(feature, datasets.ClassLabel):
        return lambda value: value if value is None or value < 0 else feature.int2str(value)
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) else None)
    if isinstance(inner, datasets.ClassLabel):
        return lambda values: [inner.int2str(value) for value in values]
    return lambda value: value
