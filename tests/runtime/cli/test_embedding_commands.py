"""`encort embed` with prompts and precisions, `encort rank` and `encort tokenize`."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from click.testing import CliRunner
from pyarrow import parquet

import encort
from encort.runtime.cli.main import group
from encort.runtime.common.errors import EncortError, InputError
from encort.runtime.tasks.quantization import EmbeddingPrecision

Invoke = Callable[..., list[dict[str, Any]]]

TEXTS = ["hello", "my card is lost", "안녕하세요"]


@pytest.fixture
def invoke() -> Invoke:
    """`invoke("rank", bundle, ...)` returns the records of a command, which must succeed."""

    def run(*arguments: str | Path, stdin: str | None = None) -> list[dict[str, Any]]:
        result = CliRunner().invoke(group, [*map(os.fspath, arguments)], input=stdin, catch_exceptions=False)
        assert (result.exit_code, result.stderr) == (0, "")
        return [json.loads(line) for line in result.stdout.splitlines()]

    return run


def fail(*arguments: str | Path) -> BaseException | None:
    """Return the error of a command."""
    return CliRunner().invoke(group, [*map(os.fspath, arguments)]).exception


@pytest.fixture(scope="module")
def prompted(encoder_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with two prompts, of which one is the default."""
    folder = Path(shutil.copytree(encoder_bundle, tmp_path_factory.mktemp("copy") / "prompted.bundle"))
    plain = json.loads((folder / "encort.json").read_text(encoding="utf-8"))
    plain["embedding"] |= {"prompts": {"query": "find my ", "document": "the card: "}, "default_prompt": "query"}
    (folder / "encort.json").write_text(json.dumps(plain), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model(prompted: Path) -> Iterator[encort.Model]:
    with encort.load(prompted, threads=1) as model:
        yield model


@pytest.mark.parametrize(
    ("options", "prompt"), [([], None), (["--prompt", "document"], "document"), (["--prompt", ""], "")]
)
def test_embed_puts_a_prompt_before_each_text(
    invoke: Invoke, prompted: Path, model: encort.Model, options: list[str], prompt: str | None
) -> None:
    records = invoke("embed", prompted, *TEXTS, *options)
    expected = model.embed(TEXTS, prompt=prompt)
    np.testing.assert_allclose([record["embedding"] for record in records], expected, atol=1e-6)
    assert records[0]["tokens"] == model.tokenize(TEXTS, prompt=prompt).lengths[0]
    if prompt is None:
        assert invoke("predict", prompted, *TEXTS) == records


@pytest.mark.parametrize("precision", get_args(EmbeddingPrecision))
@pytest.mark.parametrize("count", [0, 3])
def test_files_hold_embeddings_in_their_precision(
    invoke: Invoke, prompted: Path, model: encort.Model, tmp_path: Path, precision: EmbeddingPrecision, count: int
) -> None:
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, TEXTS[:count])))
    command = ["embed", prompted, "-i", tmp_path / "x.jsonl", "--dimensions", "20", "--output-precision", precision]
    expected = model.embed(TEXTS[:count], dimensions=20, precision=precision)
    invoke(*command, "-o", tmp_path / "x.npy")
    array = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (array.shape, array.dtype) == (expected.shape, expected.dtype)
    np.testing.assert_allclose(array, expected, atol=1e-6 if precision == "float32" else 1)
    if count:
        invoke(*command, "-o", tmp_path / "x.parquet")
        column = parquet.read_table(tmp_path / "x.parquet").column("embedding")
        assert column.type.value_type == {
            "float32": "float",
            "float16": "halffloat",
            "ubinary": "uint8",
            "binary": "int8",
        }.get(precision, precision)
        assert [record["embedding"] for record in invoke(*command)] == column.to_pylist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prompt", "x"], "no prompt 'x'; this bundle has: 'query', 'document'"),
        (["--dimensions", "41"], "dimensions must be at most 40, got 41"),
    ],
)
def test_wrong_options_are_one_error(prompted: Path, options: list[str], message: str) -> None:
    error = fail("embed", prompted, "hello", *options)
    assert isinstance(error, InputError)
    assert message in str(error)


def test_rank_writes_the_best_document_first(
    invoke: Invoke, prompted: Path, model: encort.Model, tmp_path: Path
) -> None:
    expected = [
        {"index": item.index, "score": pytest.approx(item.score, abs=1e-6), "text": TEXTS[item.index]}
        for item in model.rank("card", TEXTS)
    ]
    assert invoke("rank", prompted, "card", *TEXTS) == expected
    (tmp_path / "x.csv").write_text("text\n" + "\n".join(TEXTS), encoding="utf-8")
    assert invoke("rank", prompted, "card", "-i", tmp_path / "x.csv", "--top-k", "2") == expected[:2]
    assert invoke("rank", prompted, "card", stdin="\n".join(TEXTS)) == expected
    invoke("rank", prompted, "card", *TEXTS, "-o", tmp_path / "x.parquet")
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == expected


def test_rank_calls_a_bad_query_the_query(prompted: Path) -> None:
    assert "the query has an unpaired surrogate" in str(fail("rank", prompted, "\udcff", *TEXTS))


def test_rank_refuses_npy_and_pairs(prompted: Path, tmp_path: Path) -> None:
    assert ".npy holds embeddings alone" in str(fail("rank", prompted, "card", "a", "-o", tmp_path / "x.npy"))
    (tmp_path / "x.csv").write_text("text,text_pair\na,b\n")
    assert "rank compares one query with documents" in str(fail("rank", prompted, "card", "-i", tmp_path / "x.csv"))


def test_tokenize_shows_tokens_ids_and_offsets(invoke: Invoke, encoder_bundle: Path, encoder: encort.Model) -> None:
    (record,) = invoke("tokenize", encoder_bundle, "My  card!")
    assert record == {
        "tokens": ["[CLS]", "my", "card", "!", "[SEP]"],
        "ids": encoder.tokenize(["My  card!"]).ids.tolist(),
        "type_ids": [0] * 5,
        "offsets": [None, [0, 2], [4, 8], [8, 9], None],
        "truncated": False,
    }


def test_tokenize_shows_what_is_cut(invoke: Invoke, encoder_bundle: Path, tmp_path: Path) -> None:
    text = "card " * 100
    (record,) = invoke("tokenize", encoder_bundle, text)
    assert (len(record["ids"]), record["truncated"]) == (64, True)
    assert record["cut"] == [[62 * 5 - 1, len(text)]]
    (tmp_path / "x.jsonl").write_text(json.dumps({"text": "my card", "text_pair": text}))
    (pair,) = invoke("tokenize", encoder_bundle, "-i", tmp_path / "x.jsonl")
    assert pair["cut"] == [None, [59 * 5 - 1, len(text)]]
    assert pair["type_ids"] == [0] * 4 + [1] * 60
    assert pair["offsets"][:6] == [None, [0, 2], [3, 7], None, [0, 4], [5, 9]]


def test_tokenize_counts_offsets_from_the_end_of_the_prompt(invoke: Invoke, prompted: Path) -> None:
    (record,) = invoke("tokenize", prompted, "card")
    assert record["tokens"] == ["[CLS]", "f", "##i", "##n", "##d", "my", "card", "[SEP]"]
    assert record["offsets"] == [None] * 6 + [[0, 4], None]
    (bare,) = invoke("tokenize", prompted, "card", "--prompt", "")
    assert bare["tokens"] == ["[CLS]", "card", "[SEP]"]
    text = "card " * 100
    (long,) = invoke("tokenize", prompted, text, "--prompt", "document")
    assert long["cut"] == [[long["offsets"][-2][1], len(text)]]


def test_tokenize_makes_texts_of_ids(invoke: Invoke, encoder_bundle: Path, encoder: encort.Model) -> None:
    ids = encoder.tokenize(["playing"]).ids.tolist()
    expected = {"text": "[CLS] playing [SEP]", "tokens": ["[CLS]", "play", "##ing", "[SEP]"], "ids": ids}
    spaces, commas = " ".join(map(str, ids)), json.dumps(ids)
    assert invoke("tokenize", encoder_bundle, "--decode", spaces, commas) == [expected, expected]


@pytest.mark.parametrize("text", ["hello", "1 -2", "", "2 99999999"])
def test_ids_that_are_none_are_an_error(encoder_bundle: Path, text: str) -> None:
    error = fail("tokenize", encoder_bundle, "--decode", text)
    assert isinstance(error, EncortError)
    assert "token id" in str(error)


def test_inspect_lists_prompts_and_dimensions(prompted: Path) -> None:
    output = CliRunner().invoke(group, ["inspect", str(prompted)], catch_exceptions=False).stdout
    assert 'prompt query     "find my ", the default\n' in output
    assert 'prompt document  "the card: "\n' in output
    assert "mean pooling, L2 normalized, cosine similarity\n" in output
    assert "dimensions       40\n" in output
