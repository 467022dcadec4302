"""Result columns for DataFrames of Spark.

Install it with `pip install "encort[spark]"`, also where the workers run:

    from encort.integrations.spark import embed

    embed(spark.read.parquet("s3a://bucket/texts"), "s3://bucket/my.bundle").write.parquet("s3a://bucket/vectors")

A Python worker opens the bundle once, and uses as many threads as `spark.task.cpus` gives a task.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

from encort.integrations.threads import with_threads
from encort.runtime.common.extras import require

require("encort.integrations.spark", "spark", "pyspark")

import numpy as np  # noqa: E402 - after the check that pyspark is installed
import pyarrow as pa  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from pyspark import TaskContext  # noqa: E402
from pyspark.ml.functions import predict_batch_udf  # noqa: E402
from pyspark.sql import DataFrame  # noqa: E402
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema  # noqa: E402
from pyspark.sql.types import ArrayType, FloatType, StructType  # noqa: E402

from encort.integrations import arrow  # noqa: E402

__all__ = ["embed", "embed_udf", "run"]

_WIDER = {pa.float16(): pa.float32(), pa.uint8(): pa.int16()}
"""Types for those that Spark lacks."""


def embed(frame: DataFrame, bundle: str, **options: Any) -> DataFrame:
    """Return a DataFrame with embeddings; see `run`, and `encort.integrations.arrow.Embed` for the options."""
    return run(arrow.Embed, frame, bundle, **options)


def run(task: Callable[..., arrow.TableTask], frame: DataFrame, bundle: str, **options: Any) -> DataFrame:
    """Return a DataFrame with the result columns of a task. The driver opens the bundle once, to know their types.

    Args:
        task: `Embed`, `Classify`, `Score` or `Tag` of `encort.integrations.arrow`.
        frame: DataFrame with a column of texts.
        bundle: Folder that all workers see, URL in an object store, or name on the hub.
        options: Options of the task.

    Raises:
        EncortError: The bundle cannot be opened, or the DataFrame has no column of texts.
    """
    given = to_arrow_schema(frame.schema)
    with task(bundle, **options) as opened:
        results = opened.schema(given)
    new = pa.schema([field.with_type(_spark_type(field.type)) for field in list(results)[len(given) :]])
    schema = StructType([*frame.schema.fields, *from_arrow_schema(new).fields])
    return frame.mapInArrow(functools.partial(_annotate, task, bundle, options), schema)


def embed_udf(bundle: str, *, batch_rows: int = 4096, **options: Any) -> Any:
    """Return a function of columns that embeds texts, by `predict_batch_udf`: `frame.select(embed_udf("b")("text"))`.

    A null text stops the query; `embed` has a column for errors.

    Args:
        bundle: See `run`.
        batch_rows: Texts per call.
        options: Options of `encort.integrations.arrow.Embed`.
    """
    return predict_batch_udf(
        functools.partial(_predictor, bundle, options), return_type=ArrayType(FloatType()), batch_size=batch_rows
    )


def _annotate(
    task: Callable[..., arrow.TableTask], bundle: str, options: dict[str, Any], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    opened = task(bundle, **with_threads(options, _task_cpus))
    for batch in batches:
        table = opened(pa.Table.from_batches([batch]))
        fields = [field.with_type(_spark_type(field.type)) for field in table.schema]
        yield from table.cast(pa.schema(fields)).combine_chunks().to_batches()


def _predictor(bundle: str, options: dict[str, Any]) -> Callable[[NDArray[Any]], NDArray[np.float32]]:
    opened = arrow.Embed(bundle, on_error="fail", **with_threads(options, _task_cpus))

    def predict(texts: NDArray[Any]) -> NDArray[np.float32]:
        column = opened(pa.table({"text": pa.array(texts.tolist(), pa.string())}))["embedding"]
        return np.stack(column.to_numpy()).astype(np.float32)

    return predict


def _task_cpus() -> float | None:
    context = TaskContext.get()
    return None if context is None else context.cpus()


def _spark_type(data_type: pa.DataType) -> pa.DataType:
    """Return the type that Spark has for one of Arrow."""
    if pa.types.is_list(data_type):
        return pa.list_(_spark_type(data_type.value_type))
    return _WIDER.get(data_type, data_type)
