"""Clients of Cohere, LangChain, LlamaIndex and npm, and curl, with a server in a process of its own."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import encort
from encort.runtime.common.arrays import FloatArray
from tests.runtime.server.server_process import START_S, started

TEXTS = ["hello", "my card is lost"]
DOCUMENTS = ["hello", "my card is lost", "change the pin"]
ROOT = Path(__file__).parents[3]
NPM = ROOT / "build" / "npm"


@pytest.fixture(scope="module")
def address(encoder_bundle: Path, multi_head: Path) -> Iterator[str]:
    """Address of a server with an encoder, m, and a bundle of all heads, m1."""
    with started(encoder_bundle, multi_head) as (_, address):
        yield address


@pytest.mark.parametrize("version", [1, 2])
def test_cohere_ranks_documents(address: str, heads: encort.Model, version: int) -> None:
    cohere = pytest.importorskip("cohere")
    make = cohere.Client if version == 1 else cohere.ClientV2
    client = make("any", base_url=address)
    answer = client.rerank(model="m1", query="my card", documents=DOCUMENTS, top_n=2)
    expected = [(item.index, pytest.approx(item.score, rel=1e-4)) for item in heads.rank("my card", DOCUMENTS, top_k=2)]
    assert [(item.index, item.relevance_score) for item in answer.results] == expected
    with pytest.raises(cohere.NotFoundError):
        client.rerank(model="x", query="my card", documents=DOCUMENTS)


def test_cohere_says_how_many_tokens_of_a_document_count(address: str, heads: encort.Model) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.ClientV2("any", base_url=address)
    answer = client.rerank(model="m1", query="my card", documents=["my card is lost"], max_tokens_per_doc=2)
    assert answer.results[0].relevance_score == pytest.approx(heads.score([("my card", "my card")])[0], rel=1e-4)


def test_cohere_gets_its_documents_back(address: str) -> None:
    cohere = pytest.importorskip("cohere")
    client = cohere.Client("any", base_url=address)
    documents = [{"text": text} for text in DOCUMENTS]
    answer = client.rerank(model="m1", query="my card", documents=documents, return_documents=True)
    assert [item.document.text for item in answer.results] == [DOCUMENTS[item.index] for item in answer.results]


def test_langchain_embeds_with_the_client_of_openai(address: str, encoder: encort.Model) -> None:
    langchain = pytest.importorskip("langchain_openai")
    # Else LangChain sends token ids of OpenAI's vocabulary.
    options = {"api_key": "any", "check_embedding_ctx_length": False}
    embeddings = langchain.OpenAIEmbeddings(model="m", base_url=f"{address}/v1", **options)
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(embeddings.embed_query(TEXTS[0]), encoder.embed(TEXTS)[0], rtol=1e-5, atol=1e-6)


def test_langchain_embeds_with_the_client_of_hugging_face(
    address: str, encoder: encort.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    langchain = pytest.importorskip("langchain_huggingface")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this server is on the same machine
    embeddings = langchain.HuggingFaceEndpointEmbeddings(model=f"{address}/embed")
    np.testing.assert_allclose(embeddings.embed_documents(TEXTS), unit(encoder.embed(TEXTS)), rtol=1e-5, atol=1e-6)


def test_llama_index_embeds_with_the_client_of_openai(address: str, encoder: encort.Model) -> None:
    llama = pytest.importorskip("llama_index.embeddings.openai")
    embedding = llama.OpenAIEmbedding(model_name="m", api_base=f"{address}/v1", api_key="any")
    vectors = embedding.get_text_embedding_batch(TEXTS)
    np.testing.assert_allclose(vectors, encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)


def test_llama_index_embeds_with_text_embeddings_inference(address: str, encoder: encort.Model) -> None:
    llama = pytest.importorskip("llama_index.embeddings.text_embeddings_inference")
    embedding = llama.TextEmbeddingsInference(base_url=address, model_name="m")
    np.testing.assert_allclose(
        embedding.get_text_embedding_batch(TEXTS), unit(encoder.embed(TEXTS)), rtol=1e-5, atol=1e-6
    )


def test_npm_embeds_with_the_client_of_openai(address: str, encoder: encort.Model) -> None:
    node = shutil.which("node")
    if node is None or not (NPM / "node_modules" / "openai").exists():
        pytest.skip("needs Node and npm: make test-npm")
    script = shutil.copy(Path(__file__).parent / "npm" / "embed.mjs", NPM)
    printed = json.loads(subprocess.check_output([node, script, address, "m", *TEXTS], timeout=START_S))
    np.testing.assert_allclose(printed["embeddings"], encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)
    assert printed["models"] == ["m", "m1"]
    assert printed["failure"] == {"name": "NotFoundError", "code": "model_not_found"}


def test_curl_needs_a_url_and_json_alone(address: str, encoder: encort.Model) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("needs curl")
    command = [curl, "--silent", "--fail", f"{address}/embed", "--json", json.dumps({"inputs": TEXTS})]
    vectors = json.loads(subprocess.check_output(command, timeout=START_S))
    np.testing.assert_allclose(vectors, unit(encoder.embed(TEXTS)), rtol=1e-5, atol=1e-6)


def unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
