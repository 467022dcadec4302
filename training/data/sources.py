"""Find labelled rows: in a file, a folder with splits, or a dataset of the hub."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from encort.runtime.common.errors import DatasetError
from encort.runtime.common.folders import is_missing_folder, sha256
from encort.runtime.common.tables.lines import Row
from encort.runtime.common.tables.parquet import class_decoder
from encort.runtime.common.tables.rows import READERS, is_table, read_column_names, read_rows

_SPLITS = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
"""Our name of a split by the name of its file."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows of one split.

    Attributes:
        name: Name for messages.
        version: Hash of the content.
        file: File of the rows, or None.
        dataset: Rows of a folder or the hub, if there is no file.
        header: Names of the columns, for a .csv or .tsv file that does not begin with them.
    """

    name: str
    version: str
    file: Path | None = None
    dataset: datasets.Dataset | None = None
    header: Sequence[str] | None = None

    def column_names(self) -> list[str]:
        """Return the names of the columns; see `read_column_names`.

        Raises:
            EncortError: The file is not what its ending says.
        """
        if self.file is not None:
            return read_column_names(self.file, header=self.header)
        assert self.dataset is not None
        return list(self.dataset.column_names)

    def rows(self) -> Iterator[Row]:
        """Return the rows; a class label of `datasets` is given by its name.

        Raises:
            EncortError: The file is not what its ending says.
        """
        if self.file is not None:
            return read_rows(self.file, header=self.header)
        assert self.dataset is not None
        decoders = {name: _decoder(feature) for name, feature in self.dataset.features.items()}
        return ({name: decoders[name](value) for name, value in row.items()} for row in self.dataset)


def find_sources(
    train: str, *, validation: str | None = None, test: str | None = None, header: Sequence[str] | None = None
) -> dict[str, Source]:
    """Return the sources of the splits `train`, `validation` and `test`, as far as there are any.

    Args:
        train: A file; or a folder or hub id with a split `train`, whose other splits are taken as well.
        validation: A file, folder or hub id in place of that split.
        test: A file, folder or hub id in place of that split.
        header: See `Source`.

    Raises:
        DatasetError: One of them does not exist, or has no such split.
    """
    sources = _open(train, "train", header)
    for split, name in (("validation", validation), ("test", test)):
        if name is not None:
            opened = _open(name, split, header)
            if split not in opened and set(opened) != {"train"}:
                raise DatasetError(f"{name} has no split {split}; it has: {', '.join(opened)}")
            sources[split] = opened.get(split, opened["train"]) if "train" in opened else opened[split]
    return {split: sources[split] for split in ("train", "validation", "test") if split in sources}


def _open(name: str, split: str, header: Sequence[str] | None) -> dict[str, Source]:
    """Return every split of a folder or dataset; of a file, that one split."""
    path = Path(name)
    if path.is_dir():
        # `datasets` reads what Parquet says of a column beyond its type, such as the names of classes.
        files = [f for f in sorted(path.iterdir()) if f.stem in _SPLITS and is_table(f) and f.suffix != ".parquet"]
        sources = {_SPLITS[file.stem]: _open_file(file, header) for file in files}
        if len(sources) < len(files):
            raise DatasetError(f"{name} has several files for one split: {', '.join(file.name for file in files)}")
        return _check_split(sources, split, name) if sources else _load(name, split)
    if is_table(path):
        if not path.is_file():
            raise DatasetError(f"there is no file {name}")
        return {split: _open_file(path, header)}
    if path.is_file() or is_missing_folder(name):
        raise DatasetError(
            f"{name} is no folder, nor a file of labelled data by its ending ({', '.join(READERS)}), nor could it be a "
            "hub id"
        )
    return _load(name, split)


def _open_file(file: Path, header: Sequence[str] | None) -> Source:
    return Source(name=str(file), version=sha256(file), file=file, header=header)


def _load(name: str, wanted: str) -> dict[str, Source]:
    """Return the splits of a dataset of the hub, or of a folder that `datasets` can read.

    Args:
        name: Folder or hub id; `NAME:CONFIGURATION` if it has several configurations.
        wanted: Split that must be there, unless there is `train`.
    """
    path, _, configuration = name.partition(":")
    try:
        loaded = _load_from_disk(path) or datasets.load_dataset(path, configuration or None)
    except Exception as error:  # whatever datasets and the network raise
        reason = error.__cause__ or error
        raise DatasetError(f"{name} is no folder of splits, nor a dataset that the hub gives: {reason!r}") from error
    sources = {
        _SPLITS.get(str(split), str(split)): Source(name=f"{name} ({split})", version=rows._fingerprint, dataset=rows)
        for split, rows in loaded.items()
        if not _hides_labels(rows)
    }
    return _check_split(sources, wanted, name)


def _load_from_disk(path: str) -> Mapping[str, datasets.Dataset] | None:
    """Return the splits of a folder that `save_to_disk` of `datasets` wrote; None for other folders and hub ids."""
    if (Path(path) / "state.json").is_file():
        return {"train": datasets.load_from_disk(path)}
    return datasets.load_from_disk(path) if (Path(path) / "dataset_dict.json").is_file() else None


def _check_split(sources: dict[str, Source], wanted: str, name: str) -> dict[str, Source]:
    if wanted not in sources and "train" not in sources:
        raise DatasetError(f"{name} has no split {wanted}; it has: {', '.join(sources)}")
    return sources


def _hides_labels(rows: datasets.Dataset) -> bool:
    """Return whether all labels are -1, as in the test splits of public benchmarks."""
    labels = [name for name, feature in rows.features.items() if isinstance(feature, datasets.ClassLabel)]
    return any(rows.unique(name) == [-1] for name in labels)


def _decoder(feature: Any) -> Callable[[Any], Any]:
    """Return a function from a value of the feature to what users wrote: of a class label, its name."""
    if isinstance(feature, datasets.ClassLabel):
        return class_decoder(feature.names)
    inner = getattr(feature, "feature", None)
    return _decoder(inner) if inner is not None else lambda value: value
