"""Prompts, dimensions, precisions and similarities give the numbers of sentence-transformers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.export.exporter import export_bundle
from tests.conftest import MakeCheckpoint

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6")
modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = ["my card is lost", "hello", "", "play ing the card " * 30, "안녕하세요 하이 my pin", "ed card"]
PAIRS = [("my card", "is lost"), ("ed hello", "")]
# The last prompt ends inside a word: its own tokens are others than those at the beginning of the text.
PROMPTS = {"query": "find my card: ", "document": "", "joined": "hello play"}


@pytest.fixture(scope="module")
def folder(make_checkpoint: MakeCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of sentence-transformers with prompts."""
    saved = tmp_path_factory.mktemp("saved") / "model"
    pipeline = [modules.Transformer(str(make_checkpoint(seed=62))), modules.Pooling(40, "mean"), modules.Normalize()]
    sentence_transformers.SentenceTransformer(
        modules=pipeline, device="cpu", prompts=PROMPTS, default_prompt_name="query", similarity_fn_name="euclidean"
    ).save_pretrained(str(saved), create_model_card=False)
    return saved


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu")


@pytest.fixture(scope="module")
def ours(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[encort.Model]:
    bundle = export_bundle(folder, tmp_path_factory.mktemp("bundles") / "b", variants=["fp32"])
    with encort.load(bundle.folder, threads=1) as model:
        yield model


@pytest.mark.parametrize("prompt", [None, *PROMPTS])
def test_prompts_give_the_same_embeddings(ours: encort.Model, theirs: Any, prompt: str | None) -> None:
    expected = theirs.encode(TEXTS, prompt_name=prompt)
    np.testing.assert_allclose(ours.embed(TEXTS, prompt=prompt), expected, rtol=0, atol=1e-5)


def test_literal_prompts_and_pairs_give_the_same_embeddings(ours: encort.Model, theirs: Any) -> None:
    expected = theirs.encode([*TEXTS, *map(list, PAIRS)], prompt="pin: ")
    embeddings = ours.embed([*TEXTS, *PAIRS], prompt=encort.Prompt("pin: "))
    np.testing.assert_allclose(embeddings, expected, rtol=0, atol=1e-5)
    without = theirs.encode(TEXTS, prompt="")
    np.testing.assert_allclose(ours.embed(TEXTS, prompt=""), without, rtol=0, atol=1e-5)


def test_dimensions_are_cut_at_the_same_place(ours: encort.Model, theirs: Any) -> None:
    expected = theirs.encode(TEXTS, truncate_dim=9)
    np.testing.assert_allclose(ours.embed(TEXTS, dimensions=9), expected, rtol=0, atol=1e-5)
    assert np.linalg.norm(expected, axis=1).max() < 0.9, "they are not normalized again"


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_the_same(ours: encort.Model, theirs: Any, precision: Any) -> None:
    expected = theirs.encode(TEXTS, precision=precision)
    bits = ours.embed(TEXTS, precision=precision)
    assert bits.dtype == expected.dtype
    np.testing.assert_array_equal(bits, expected)


def test_ranking_has_the_order_and_the_scores_of_queries_and_documents(ours: encort.Model, theirs: Any) -> None:
    (expected,) = theirs.similarity(theirs.encode_query(["lost card"]), theirs.encode_document(TEXTS)).numpy()
    ranked = ours.rank("lost card", TEXTS)
    assert [item.index for item in ranked] == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose([item.score for item in ranked], np.sort(expected)[::-1], rtol=0, atol=1e-5)


def test_a_cross_encoder_ranks_alike(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> None:
    theirs = sentence_transformers.CrossEncoder(str(make_checkpoint(labels=["score"], seed=63)), device="cpu")
    theirs.save_pretrained(str(tmp_path / "cross"))
    expected = theirs.rank("lost card", TEXTS, top_k=4)
    bundle = export_bundle(tmp_path / "cross", tmp_path / "b", variants=["fp32"])
    with encort.load(bundle.folder, threads=1) as model:
        ranked = model.rank("lost card", TEXTS, top_k=4)
    assert [item.index for item in ranked] == [item["corpus_id"] for item in expected]
    np.testing.assert_allclose([item.score for item in ranked], [item["score"] for item in expected], atol=1e-5)
