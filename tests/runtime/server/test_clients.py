"""Real clients and a real server process."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import encort

TEXTS = ["hello", "my card is lost"]
START_S = 60


@pytest.fixture(scope="module")
def address(encoder_bundle: Path) -> Iterator[str]:
    """Start `encort serve` and return its address."""
    command = [sys.executable, "-m", "encort", "serve", f"m={encoder_bundle}", "--threads", "1", "--port", "18765"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield wait_for(process, "http://127.0.0.1:18765")
        finally:
            process.terminate()


def wait_for(process: "subprocess.Popen[str]", address: str) -> str:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/health").close()
        except OSError:
            time.sleep(0.1)
        else:
            return address
    process.kill()
    raise AssertionError(process.stderr and process.stderr.read())


@pytest.mark.parametrize("encoding", ["default", "float"])
def test_openai_gets_the_embeddings_of_the_model(address: str, encoder: encort.Model, encoding: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    options = {} if encoding == "default" else {"encoding_format": encoding}
    answer = client.embeddings.create(model="m", input=TEXTS, **options)
    np.testing.assert_allclose([item.embedding for item in answer.data], encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)
    assert answer.usage.total_tokens == encoder.tokenize(TEXTS).tokens_per_text.sum()


def test_openai_raises_its_own_errors(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    with pytest.raises(openai.NotFoundError, match="no model 'x'"):
        client.embeddings.create(model="x", input="hello")
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="m", input="")


def test_openai_lists_the_models(address: str) -> None:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0)
    assert [model.id for model in client.models.list()] == ["m"]


def test_the_client_of_hugging_face_gets_embeddings(
    address: str, encoder: encort.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    # Tests are offline, and this server is on the same machine.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    vectors = hub.InferenceClient(model=f"{address}/embed").feature_extraction(TEXTS[0])
    np.testing.assert_allclose(vectors, encoder.embed(TEXTS[:1]), rtol=1e-5, atol=1e-6)
