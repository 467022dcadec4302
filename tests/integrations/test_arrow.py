"""Tables get result columns: the values are those of the model, and bad rows have their error."""

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.errors import InputError, WrongTaskError

pa = pytest.importorskip("pyarrow")
arrow = pytest.importorskip("encort.integrations.arrow")

TEXTS = ["hello", "my card is lost", "", "안녕하세요", "card " * 200]


@pytest.fixture
def table() -> Any:
    return pa.table({"id": range(len(TEXTS)), "text": TEXTS})


@pytest.mark.parametrize("precision", ["float32", "float16", "int8", "binary"])
def test_embeddings_are_those_of_the_model(bundle: Path, model: encort.Model, table: Any, precision: Any) -> None:
    result = arrow.Embed(bundle, prompt="passage", output_precision=precision, threads=1)(table)
    assert result.column_names == ["id", "text", "embedding", "tokens", "truncated", "error"]
    expected = model.embed(TEXTS, prompt="passage", precision=precision)
    np.testing.assert_allclose(
        np.stack(result["embedding"].to_pylist()), expected, atol=1e-6 if precision == "float32" else 1e-3
    )
    assert result["embedding"].type == pa.list_(pa.from_numpy_dtype(expected.dtype))
    assert result["truncated"].to_pylist() == [False, False, False, False, True]
    assert result["error"].null_count == len(TEXTS)


def test_bad_rows_have_an_error_are_left_out_or_stop(bundle: Path, table: Any) -> None:
    table = table.set_column(1, "text", pa.array([None, *TEXTS[1:]]))
    result = arrow.Embed(bundle, threads=1)(table)
    assert result["error"][0].as_py() == "row 1: column 'text' holds None, expected a text"
    assert [result[name][0].as_py() for name in ("embedding", "tokens", "truncated")] == [None, None, None]
    assert result["error"].null_count == len(TEXTS) - 1
    assert arrow.Embed(bundle, threads=1, on_error="skip")(table)["id"].to_pylist() == [1, 2, 3, 4]
    with pytest.raises(InputError, match="row 1: column 'text' holds None"):
        arrow.Embed(bundle, threads=1, on_error="fail")(table)
    nothing = arrow.Embed(bundle, threads=1)(table.slice(0, 1))
    assert nothing.schema == result.schema == arrow.Embed(bundle, threads=1).schema(table.schema)


def test_a_table_without_rows_has_the_columns(bundle: Path, table: Any) -> None:
    embed = arrow.Embed(bundle, threads=1)
    assert embed(table.slice(0, 0)).schema == embed(table).schema


def test_a_row_that_is_not_utf8_is_a_bad_row(bundle: Path) -> None:
    text = pa.array([b"hello", b"\xff"]).view(pa.string())
    result = arrow.Embed(bundle, threads=1)(pa.table({"text": text}))
    assert "row 2 cannot be read" in result["error"][1].as_py()
    assert result["error"][0].as_py() is None


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"body": ["a"]}, {}, "no column 'text'; it has: body"),
        ({"text": ["a"]}, {"column": "body"}, "no column 'body'; it has: text"),
        ({"text": ["a"], "tokens": [1]}, {}, "columns that results would have too: tokens"),
    ],
)
def test_wrong_tables_are_one_error(bundle: Path, columns: Any, options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        arrow.Embed(bundle, threads=1, **options)(pa.table(columns))


def test_a_prefix_lets_two_models_share_a_table(bundle: Path, table: Any) -> None:
    once = arrow.Embed(bundle, threads=1, prefix="a_")(table)
    both = arrow.Embed(bundle, threads=1, prefix="b_", dimensions=8)(once)
    assert len(both["a_embedding"][0]) == 40
    assert len(both["b_embedding"][0]) == 8


def test_heads_have_their_columns(multi_head: Path, table: Any) -> None:
    with encort.load(multi_head, threads=1) as model:
        classes, scores, spans = model.classify(TEXTS), model.score(TEXTS), model.tag(TEXTS)
    result = arrow.Classify(multi_head, threads=1, all_scores=True)(table)
    assert result["label"].to_pylist() == [result.label for result in classes]
    assert result["scores"].to_pylist()[1] == pytest.approx(dict(classes[1].scores), abs=1e-5)
    np.testing.assert_allclose(arrow.Score(multi_head, threads=1)(table)["score"].to_numpy(), scores, atol=1e-5)
    tagged = arrow.Tag(multi_head, threads=1)(table)["spans"].to_pylist()
    assert [[(span["start"], span["label"]) for span in row] for row in tagged] == [
        [(span.start, span.label) for span in row] for row in spans
    ]
    words = arrow.Tag(multi_head, threads=1, prefix="p_")(pa.table({"tokens": [["my", "card"]]}))
    assert len(words["p_tags"][0]) == 2


def test_a_bundle_without_the_head_is_an_error(bundle: Path, table: Any) -> None:
    with pytest.raises(WrongTaskError):
        arrow.Classify(bundle, threads=1)(table)


def test_copies_of_a_process_share_one_model(bundle: Path, table: Any) -> None:
    embed = arrow.Embed(bundle, threads=1, dimensions=8)
    copy = pickle.loads(pickle.dumps(embed))
    assert copy(table).equals(embed(table))
    other = arrow.Embed(bundle, threads=1, prompt="query")
    other(table)
    assert copy._model.open() is embed._model.open() is other._model.open()
    embed.close()
    assert copy(table).equals(embed(table))  # opened again


def test_another_process_opens_the_bundle_again(bundle: Path, table: Any, tmp_path: Path) -> None:
    embed = arrow.Embed(bundle, threads=1)
    expected = embed(table)
    (tmp_path / "task.pickle").write_bytes(pickle.dumps((embed, table)))
    code = (
        "import pickle, sys; embed, table = pickle.load(open(sys.argv[1], 'rb'));"
        "pickle.dump(embed(table), open(sys.argv[1], 'wb'))"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "task.pickle"], check=True)
    assert pickle.loads((tmp_path / "task.pickle").read_bytes()).equals(expected)
