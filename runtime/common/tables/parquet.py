"""Parquet, with the names of classes that the `datasets` library writes into it."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from encort.runtime.common.errors import InputError, MissingExtraError
from encort.runtime.common.tables.lines import Row, check_names

_ROWS = 512
_FEATURES = b"huggingface"
"""Name of the features of `datasets` in the metadata of a file."""


def read_parquet(file: Path) -> Iterator[Row | InputError]:
    """Yield each row, or the error that says why it cannot be read; see `scan_rows`.

    Numbers of classes are given by their names, if the file has them.

    Raises:
        InputError: The file is not Parquet, or a pipe or device; or several columns have one name.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise MissingExtraError("reading Parquet", extra="parquet") from None
    if not file.is_file():
        raise InputError(
            f"{file} is a pipe or a device, and Parquet is not read from front to end; save it as a file first"
        )
    number = 0
    try:
        table = parquet.ParquetFile(file)
        check_names(table.schema_arrow.names, file)
        decoders = _class_decoders(table.schema_arrow.metadata or {})
        for batch in table.iter_batches(batch_size=_ROWS):
            for row in batch_rows(batch):
                number += 1
                if isinstance(row, Exception):
                    yield InputError(f"{file}, row {number} cannot be read: {row}")
                else:
                    yield row | {name: decode(row[name]) for name, decode in decoders.items() if name in row}
    except InputError:
        raise
    except (ArrowException, ValueError) as error:
        raise InputError(f"{file} is not Parquet: {error}") from error


def batch_rows(batch: Any) -> Iterator[dict[str, Any] | Exception]:
    """Yield the rows of a batch, or the error of a row with a value that Python lacks, such as a date in year 30000."""
    try:
        yield from batch.to_pylist()
    except Exception:  # pyarrow raises errors of many kinds
        for index in range(batch.num_rows):
            try:
                (row,) = batch.slice(index, 1).to_pylist()
            except Exception as error:
                yield error
            else:
                yield row


def _class_decoders(metadata: Mapping[bytes, bytes]) -> dict[str, Callable[[Any], Any]]:
    """Return functions from class numbers to names, by the column that has them."""
    try:
        features = json.loads(metadata.get(_FEATURES, b"{}"))["info"]["features"].items()
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    names = {name: _class_names(feature) for name, feature in features}
    return {name: class_decoder(classes) for name, classes in names.items() if classes}


def _class_names(feature: Any) -> list[str]:
    """Return the names of the classes of a feature, or of the items of a list."""
    if isinstance(feature, list):  # how older versions write a list
        return _class_names(feature[0]) if feature else []
    if not isinstance(feature, dict):
        return []
    names = feature.get("names")
    return names if feature.get("_type") == "ClassLabel" and names else _class_names(feature.get("feature"))


def class_decoder(names: list[str]) -> Callable[[Any], Any]:
    """Return a function from a class number, or a list of them, to names. Other values, such as -1, stay."""

    def decode(value: Any) -> Any:
        if isinstance(value, list):
            return [decode(item) for item in value]
        return names[value] if isinstance(value, int) and 0 <= value < len(names) else value

    return decode
