"""Routes that use the tokenizer, token vectors and token weights; and the description of what is served."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

import encort
from encort.export.exporter import export_bundle
from tests.builders import save_checkpoint
from tests.parity.test_bge_m3 import save_layers
from tests.parity.test_colbert import save_colbert
from tests.runtime.server.conftest import Connect

TEXTS = ["hello", "my card is lost"]


@pytest.fixture(scope="module")
def colbert(tmp_path_factory: pytest.TempPathFactory) -> Iterator[encort.Model]:
    folder = tmp_path_factory.mktemp("colbert")
    bundle = export_bundle(save_colbert(folder / "c"), folder / "b", variants=["fp32"]).folder
    with encort.load(bundle, threads=1) as model:
        yield model


def call(connect: Connect, model: encort.Model, path: str, body: Any = None, **settings: Any) -> Any:
    async def send() -> Any:
        async with connect({"m": model}, **settings) as client:
            return await (client.get(path) if body is None else client.post(path, json=body))

    return asyncio.run(send())


def test_tokens_are_those_of_the_tokenizers_library(connect: Connect, encoder: encort.Model) -> None:
    library = tokenizers.Tokenizer.from_file(str(encoder.bundle.folder / "tokenizer.json"))
    library.no_truncation()
    texts = [*TEXTS, "My card, " * 400]
    answer = call(connect, encoder, "/tokenize", {"inputs": texts}).json()
    for text, row in zip(texts, answer, strict=True):
        encoding = library.encode(text)
        assert [token["id"] for token in row] == encoding.ids
        assert [token["special"] for token in row] == [bool(flag) for flag in encoding.special_tokens_mask]
        inner = row[1:-1]
        assert [(token["start"], token["stop"]) for token in inner] == encoding.offsets[1:-1]
        assert [token["text"] for token in inner] == [text[start:stop] for start, stop in encoding.offsets[1:-1]]
    assert answer[0][0] == {"id": 2, "text": "[CLS]", "special": True, "start": None, "stop": None}


def test_special_tokens_are_left_out_on_request(connect: Connect, encoder: encort.Model) -> None:
    (row,) = call(connect, encoder, "/tokenize", {"inputs": "hello", "add_special_tokens": False}).json()
    assert [token["id"] for token in row] == encoder.tokenize(["hello"]).ids[1:-1].tolist()


def test_tokens_of_a_colbert_document_have_its_marker(connect: Connect, colbert: encort.Model) -> None:
    (row,) = call(connect, colbert, "/tokenize", {"inputs": "hello"}).json()
    assert [token["id"] for token in row] == colbert.tokenize(["hello"]).ids.tolist()


@pytest.mark.parametrize("many", [False, True])
def test_token_ids_are_decoded(connect: Connect, encoder: encort.Model, many: bool) -> None:
    ids = encoder.tokenize(["my card"]).ids.tolist()
    body = {"ids": [ids, ids] if many else ids}
    assert call(connect, encoder, "/decode", body).json() == ["my card"] * (2 if many else 1)
    (text, *_) = call(connect, encoder, "/decode", {**body, "skip_special_tokens": False}).json()
    assert text == "[CLS] my card [SEP]"


@pytest.mark.parametrize("ids", [[], [[]], [1, [2]], [10**9], [-1], [2**70]])
def test_bad_token_ids_are_refused(connect: Connect, encoder: encort.Model, ids: Any) -> None:
    answer = call(connect, encoder, "/decode", {"ids": ids})
    assert (answer.status_code, answer.json()["error_type"]) == (422, "Validation")


def test_token_limits_hold_without_a_run_too(connect: Connect, encoder: encort.Model) -> None:
    answer = call(connect, encoder, "/tokenize", {"inputs": ["hello"] * 4}, max_tokens=9)
    assert answer.status_code == 422
    assert "max_tokens=9" in answer.text


def test_token_vectors_equal_those_of_the_model(connect: Connect, encoder: encort.Model) -> None:
    answer = call(connect, encoder, "/embed_all", {"inputs": TEXTS}).json()
    for vectors, expected in zip(answer, encoder.embed_tokens(TEXTS), strict=True):
        np.testing.assert_allclose(vectors, expected, rtol=1e-4, atol=1e-5)


def test_documents_are_ranked_by_token_vectors(connect: Connect, colbert: encort.Model) -> None:
    texts = [*TEXTS, "change the pin"]
    answer = call(connect, colbert, "/v2/rerank", {"query": "my card", "documents": texts}).json()
    expected = [(item.index, pytest.approx(item.score, rel=1e-4)) for item in colbert.rank("my card", texts)]
    assert [(item["index"], item["relevance_score"]) for item in answer["results"]] == expected


def test_token_weights_equal_those_of_the_model(connect: Connect, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "c")
    torch.manual_seed(1)
    save_layers(checkpoint)
    folder = export_bundle(checkpoint, tmp_path / "b", variants=["fp32"]).folder
    with encort.load(folder, threads=1) as model:
        answer = call(connect, model, "/embed_sparse", {"inputs": TEXTS}).json()
        for row, expected in zip(answer, model.embed_sparse(TEXTS), strict=True):
            assert [item["index"] for item in row] == expected.indices.tolist()
            np.testing.assert_allclose([item["value"] for item in row], expected.weights, rtol=1e-5)


def test_a_bundle_without_token_weights_says_so(connect: Connect, encoder: encort.Model) -> None:
    answer = call(connect, encoder, "/embed_sparse", {"inputs": TEXTS})
    assert (answer.status_code, answer.json()["error_type"]) == (424, "Backend")


def test_the_description_names_what_runs_the_model(connect: Connect, encoder: encort.Model) -> None:
    described = call(connect, encoder, "/info", max_items=7).json()
    assert described["served_model_name"] == "m"
    assert described["model_type"] == {"embedding": {"pooling": "mean"}}
    assert described["max_input_length"] == encoder.manifest.max_length
    assert described["max_client_batch_size"] == 7
    (runs_on,) = described["models"]
    names = ("variant", "precision", "layout", "instruction_set", "threads")
    variant = encoder.variant
    expected = [variant.name, variant.precision, variant.layout, variant.instruction_set, 1]
    assert [runs_on[name] for name in names] == expected


def test_the_description_names_the_labels_of_a_classifier(connect: Connect, classifier: encort.Model) -> None:
    labels = classifier.head().labels
    expected = {"id2label": dict(zip(map(str, range(len(labels))), labels, strict=True))}
    described = call(connect, classifier, "/info").json()["model_type"]["classifier"]
    assert described["id2label"] == expected["id2label"]
    assert described["label2id"] == {label: number for number, label in enumerate(labels)}
