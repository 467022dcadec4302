"""Bundles with prompts and with a cross-encoder, and models of them to compare with."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import encort
from tests.conftest import MakeCheckpoint

PROMPTS = {"query": "my pin is lost: ", "passage": "hello: "}


@pytest.fixture(scope="session")
def bundle(encoder_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with prompts for queries and for documents."""
    folder = Path(shutil.copytree(encoder_bundle, tmp_path_factory.mktemp("prompts") / "prompts.bundle"))
    manifest = json.loads((folder / "encort.json").read_text(encoding="utf-8"))
    manifest["embedding"]["prompts"] = PROMPTS
    (folder / "encort.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def model(bundle: Path) -> Iterator[encort.Model]:
    """A model of the bundle with prompts, to compare with."""
    with encort.load(bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def reranker_bundle(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of a cross-encoder."""
    from encort.export.exporter import export_bundle

    checkpoint = make_checkpoint(labels=["relevance"], seed=5)
    folder = tmp_path_factory.mktemp("reranker") / "reranker.bundle"
    return export_bundle(checkpoint, folder, variants=["fp32"]).folder


@pytest.fixture(scope="session")
def reranker(reranker_bundle: Path) -> Iterator[encort.Model]:
    """A model of the cross-encoder, to compare with."""
    with encort.load(reranker_bundle, threads=1) as model:
        yield model
