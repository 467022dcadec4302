"""`encort embed --tokens` and `--sparse` write what the library gives, and `inspect` names it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

import encort
from encort.export.exporter import export_bundle
from encort.runtime.cli.main import group
from tests.conftest import MakeCheckpoint


@pytest.fixture(scope="module")
def bundle(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in the layout of bge-m3: all three embeddings."""
    folder = make_checkpoint(seed=6)
    torch.manual_seed(3)
    for name, size in (("colbert", 24), ("sparse", 1)):
        layer = torch.nn.Linear(json.loads((folder / "config.json").read_text())["hidden_size"], size)
        torch.nn.init.constant_(layer.bias, 1.5)
        torch.save(layer.state_dict(), folder / f"{name}_linear.pt")
    return export_bundle(folder, tmp_path_factory.mktemp("bundles") / "b", variants=["fp32"]).folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def test_token_vectors_and_weights_are_written(bundle: Path, tmp_path: Path) -> None:
    texts = ["my card is lost", "hello"]
    with encort.load(bundle, threads=1) as model:
        vectors, weights = model.embed_tokens(texts), model.embed_sparse(texts, top_k=2)
    tokens = [json.loads(line) for line in run("embed", bundle, "--tokens", *texts).stdout.splitlines()]
    sparse = [json.loads(line) for line in run("embed", bundle, "--sparse", "--top-k", "2", *texts).stdout.splitlines()]
    for record, expected in zip(tokens, vectors, strict=True):
        np.testing.assert_allclose(record["token_embeddings"], expected, atol=1e-6)
        assert record["tokens"] == len(expected) + 1
    for record, embedding in zip(sparse, weights, strict=True):
        assert record["indices"] == embedding.indices.tolist()
        np.testing.assert_allclose(record["weights"], embedding.weights, rtol=1e-6)
    parquet = pytest.importorskip("pyarrow.parquet")
    assert run("embed", bundle, "--tokens", *texts, "-o", tmp_path / "t.parquet").exit_code == 0
    (first, _) = parquet.read_table(tmp_path / "t.parquet")["token_embeddings"].to_pylist()
    np.testing.assert_allclose(first, vectors[0], atol=1e-6)


@pytest.mark.parametrize("option", ["--tokens", "--sparse"])
def test_jobs_over_folders_write_them_too(bundle: Path, tmp_path: Path, option: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "a.csv").write_text("text\nmy card is lost\nhello\n")
    result = run("embed", bundle, option, "--input", texts, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    table = parquet.read_table(tmp_path / "out")
    assert table.num_rows == 2
    assert {"--tokens": "token_embeddings", "--sparse": "weights"}[option] in table.column_names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "--sparse"], "give one of them"),
        (["--top-k", "3"], "give both"),
        (["--sparse", "--dimensions", "8"], "for sentence embeddings alone"),
        (["--tokens", "-o", "x.npy"], ".npy holds embeddings alone"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("embed", bundle, *arguments, "hello")
    assert result.exit_code != 0
    assert message in f"{result.output} {result.exception}"


def test_a_bundle_without_these_embeddings_is_refused(encoder_bundle: Path) -> None:
    result = run("embed", encoder_bundle, "--sparse", "hello")
    assert "token_weights" in f"{result.output} {result.exception}"


def test_inspect_names_the_embeddings(bundle: Path) -> None:
    shown = run("inspect", bundle).stdout
    assert "24 dimensions, L2 normalized, compared by MaxSim" in shown
    assert "weights of the text's tokens" in shown
