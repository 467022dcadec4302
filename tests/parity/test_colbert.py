"""Token vectors of ColBERT, as PyLate saves it, are those of sentence-transformers."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import encort
from encort.export.exporter import export_bundle
from encort.runtime.common.errors import CheckpointError, InputError, WrongTaskError
from tests.builders import bert_tokenizer, save_checkpoint, vocabulary

sentence_transformers = pytest.importorskip("sentence_transformers", minversion="6.2")

TEXTS = ["my card is lost.", "hello!", "play " * 40, "change the pin, my card"]
LENGTHS = {"query_length": 12, "document_length": 30}


def save_colbert(folder: Path, **settings: Any) -> Path:
    """Save a tiny BERT with a projection of its tokens in the layout of PyLate."""
    (folder / "1_Dense").mkdir(parents=True)
    save_checkpoint(folder, vocab_size=len(vocabulary()) + 3)
    words = [*vocabulary(), "[unused0]", "[unused1]"]
    bert_tokenizer(words, model_max_length=64).save_pretrained(folder)
    torch.manual_seed(1)
    save_file({"linear.weight": torch.randn(16, 40)}, folder / "1_Dense" / "model.safetensors")
    activation = "torch.nn.modules.linear.Identity"
    dense = {"in_features": 40, "out_features": 16, "bias": False, "activation_function": activation}
    (folder / "1_Dense" / "config.json").write_text(json.dumps(dense))
    types = {"": "sentence_transformers.models.Transformer", "1_Dense": "pylate.models.Dense.Dense"}
    listed = [{"idx": i, "name": str(i), "path": path, "type": types[path]} for i, path in enumerate(types)]
    (folder / "modules.json").write_text(json.dumps(listed))
    markers = {"query_prefix": "[unused0]", "document_prefix": "[unused1]", "skiplist_words": [".", "!"]}
    saved = {"model_type": "ColBERT", **markers, **LENGTHS, **settings}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(saved))
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["unattended", "attended"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ColBERT whose queries are expanded; the tokens of the text attend to the expansion, or do not."""
    return save_colbert(tmp_path_factory.mktemp("colbert") / "c", attend_to_expansion_tokens=request.param)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Any:
    return sentence_transformers.MultiVectorEncoder(str(folder), device="cpu")


@pytest.fixture(scope="module")
def bundle(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle, whose graphs are also compared with eager PyTorch by the export."""
    target = tmp_path_factory.mktemp("bundles") / "b"
    return export_bundle(folder, target, variants=["fp32", "int8", "portable"]).folder


@pytest.fixture(scope="module")
def ours(bundle: Path) -> Iterator[encort.Model]:
    with encort.load(bundle, precision="fp32", threads=1) as model:
        yield model


def expected(theirs: Any, side: str, texts: list[str]) -> list[Any]:
    encode = theirs.encode_query if side == "query" else theirs.encode_document
    return list(encode(texts, convert_to_numpy=True))


@pytest.mark.parametrize("side", ["query", "document"])
def test_the_token_vectors_are_those_of_sentence_transformers(ours: encort.Model, theirs: Any, side: str) -> None:
    vectors = ours.embed_tokens(TEXTS, prompt=side)
    for found, reference in zip(vectors, expected(theirs, side, TEXTS), strict=True):
        np.testing.assert_allclose(found, reference, rtol=0, atol=1e-5)


def test_texts_without_a_prompt_are_documents_and_a_service_gives_the_same(ours: encort.Model) -> None:
    with ours.serving() as service:
        for text, document in zip(TEXTS, ours.embed_tokens(TEXTS), strict=True):
            np.testing.assert_allclose(service.embed_tokens(text), document, rtol=0, atol=1e-5)
            (query,) = ours.embed_tokens([text], prompt="query")
            np.testing.assert_allclose(service.embed_tokens(text, prompt="query"), query, rtol=0, atol=1e-5)
    (default,) = ours.embed_tokens(TEXTS[:1])
    (document,) = ours.embed_tokens(TEXTS[:1], prompt="document")
    np.testing.assert_array_equal(default, document)


def test_ranking_sums_the_largest_products(ours: encort.Model, theirs: Any) -> None:
    (query,), documents = expected(theirs, "query", ["lost card"]), expected(theirs, "document", TEXTS)
    scores = np.array([(query @ document.T).max(axis=1).sum() for document in documents])
    ranked = ours.rank("lost card", TEXTS)
    assert [item.index for item in ranked] == np.argsort(-scores, kind="stable").tolist()
    np.testing.assert_allclose([item.score for item in ranked], np.sort(scores)[::-1], rtol=1e-5)


def test_eight_bits_give_vectors_of_the_same_direction(bundle: Path, theirs: Any) -> None:
    with encort.load(bundle, precision="int8", threads=1) as model:
        for side in ("query", "document"):
            vectors = model.embed_tokens(TEXTS, prompt=side)
            for found, reference in zip(vectors, expected(theirs, side, TEXTS), strict=True):
                assert found.shape == reference.shape
                assert (found * reference).sum(axis=1).mean() > 0.9


def test_other_tasks_and_windows_are_refused(ours: encort.Model) -> None:
    with pytest.raises(WrongTaskError):
        ours.embed(TEXTS)
    with pytest.raises(WrongTaskError, match="token_weights"):
        ours.embed_sparse(TEXTS)
    with pytest.raises(InputError, match="windows"):
        ours.embed_tokens(TEXTS, prompt="query", overflow="window")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"query_prefix": "[absent]"}, "has no token '\\[absent\\]'"),
        ({"query_length": 3}, "leaves no room"),
        ({"query_length": "12"}, "expected int"),
        ({"prompts": {"query": "find: "}}, "both markers and prompts"),
    ],
)
def test_settings_that_a_bundle_cannot_hold_are_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        export_bundle(save_colbert(tmp_path / "c", **settings), tmp_path / "b", variants=["fp32"])


def test_unattended_expansions_have_no_graph_for_cuda(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="expands queries"):
        export_bundle(save_colbert(tmp_path / "c"), tmp_path / "b", variants=["fp32", "cuda-fp32"])
