"""Records as columns of Arrow. A column has the same type in every table of a job, whatever its records hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from encort.runtime.corpus.inputs import Record

ERROR = "error"
"""Column that says why an input cannot be used; null for the others."""

_OFFSETS = {"start": pa.int64(), "end": pa.int64()}
_WORD = pa.struct({"text": pa.string(), "token": pa.int64(), "score": pa.float64()})
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
    "token_embeddings": pa.list_(pa.list_(pa.float32())),
    "indices": pa.list_(pa.int64()),
    "weights": pa.list_(pa.float32()),
    "masks": pa.list_(pa.struct({"words": pa.list_(_WORD), "start": pa.int64(), "end": pa.int64()})),
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
        # No list of fixed size: pyarrow up to 21 at least cannot read one with nulls from Parquet, and Spark has none.
        return pa.list_(pa.from_numpy_dtype(value.dtype))
    return pa.struct(dict.fromkeys(value, pa.float64())) if isinstance(value, Mapping) else pa.list_(pa.float64())


def _column(values: Sequence[Any], data_type: pa.DataType) -> pa.Array:
    vectors = [value for value in values if isinstance(value, np.ndarray)]
    if not vectors:
        return pa.array(values, data_type)
    missing = np.array([value is None for value in values], bool)
    ends = np.cumsum([0 if value is None else len(value) for value in values], dtype=np.int32)
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32(), mask=np.append(missing, False))
    return pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(vectors)), type=data_type)
