"""Records as columns of Arrow. A column has the same type in every table of a job, whatever its records hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from encort.runtime.corpus.inputs import Record

ERROR = "error"
"""Column that says why an input cannot be used; null for the others."""

_OFFSETS = {"start": pa.int64(), "end": pa.int64()}
_TYPES: Mapping[str, pa.DataType] = {
    "label": pa.string(),
    "score": pa.float64(),
    "labels": pa.list_(pa.string()),
    "spans": pa.list_(pa.struct({"label": pa.string(), "score": pa.float64(), **_OFFSETS, "text": pa.string()})),
    "tags": pa.list_(pa.string()),
    "answers": pa.list_(pa.struct({"text": pa.string(), "score": pa.float64(), **_OFFSETS})),
    "no_answer": pa.bool_(),
    "null_score": pa.float64(),
    "tokens": pa.int32(),
    "truncated": pa.bool_(),
    ERROR: pa.string(),
}
"""Types of the fields of records, but for `embedding` and `scores`, whose size depends on the bundle."""


def result_schema(sample: Record) -> pa.Schema:
    """Return the schema of the columns of records, by the record of any good input."""
    fields = {name: _TYPES.get(name) or _sized_type(value) for name, value in sample.items() if name != ERROR}
    return pa.schema([*fields.items(), (ERROR, _TYPES[ERROR])])


def result_columns(records: Sequence[Record], schema: pa.Schema) -> list[pa.Array]:
    """Return one array per field of the schema. Fields that a record lacks are null."""
    return [_column([record.get(field.name) for record in records], field.type) for field in schema]


def _sized_type(value: Any) -> pa.DataType:
    """Return the type of an embedding, of a list of scores, or of the scores of labels."""
    if isinstance(value, np.ndarray):
        return pa.list_(pa.from_numpy_dtype(value.dtype), len(value))
    return pa.struct(dict.fromkeys(value, pa.float64())) if isinstance(value, Mapping) else pa.list_(pa.float64())


def _column(values: Sequence[Any], data_type: pa.DataType) -> pa.Array:
    if not pa.types.is_fixed_size_list(data_type):
        return pa.array(values, data_type)
    missing = np.array([value is None for value in values], bool)
    vectors = np.zeros((len(values), data_type.list_size), data_type.value_type.to_pandas_dtype())
    if not missing.all():
        vectors[~missing] = np.stack([value for value in values if value is not None])
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=data_type, mask=mask)
