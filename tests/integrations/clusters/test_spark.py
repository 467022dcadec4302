"""Spark over a bundle. `make clusters` has the packages; it needs Java 17."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort

pyspark = pytest.importorskip("pyspark")
pytest.importorskip("pyarrow")
pytest.importorskip("pandas")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("java") is None, reason="needs Java 17")]


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false")
    session = builder.config("spark.pyspark.python", sys.executable).getOrCreate()  # else it is the first in PATH
    yield session
    session.stop()


@pytest.fixture
def frame(spark: Any) -> Any:
    return spark.createDataFrame([(0, "hello"), (1, None), (2, "my card")], "id long, text string").coalesce(1)


def test_frames_get_result_columns(bundle: Path, model: encort.Model, frame: Any) -> None:
    from encort.integrations.spark import embed

    result = embed(frame, str(bundle), prompt="passage")
    assert dict(result.dtypes)["embedding"] == "array<float>"
    rows = sorted(result.collect(), key=lambda row: row.id)
    expected = model.embed(["hello", "my card"], prompt="passage")
    np.testing.assert_allclose([rows[0].embedding, rows[2].embedding], expected, atol=1e-6)
    assert rows[1].embedding is None
    assert "column 'text' holds None" in rows[1].error


def test_types_that_spark_lacks_become_wider(bundle: Path, frame: Any) -> None:
    from encort.integrations.spark import embed

    assert dict(embed(frame, str(bundle), output_precision="ubinary").dtypes)["embedding"] == "array<smallint>"
    assert dict(embed(frame, str(bundle), output_precision="float16").dtypes)["embedding"] == "array<float>"


def test_a_function_of_columns_gives_vectors(bundle: Path, model: encort.Model, frame: Any) -> None:
    from encort.integrations.spark import embed_udf

    (row, *_) = frame.na.drop().select(embed_udf(str(bundle), prompt="")("text").alias("vector")).collect()
    np.testing.assert_allclose(row.vector, model.embed(["hello"], prompt="")[0], atol=1e-6)
