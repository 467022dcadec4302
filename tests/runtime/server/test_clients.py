"""Real clients and a real server process."""

import signal
import socket
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import encort
from tests.runtime.server.server_process import START_S, started

TEXTS = ["hello", "my card is lost"]


@pytest.fixture(scope="module")
def address(encoder_bundle: Path) -> Iterator[str]:
    """Address of a server."""
    with started(encoder_bundle) as (_, address):
        yield address


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_requests_that_have_begun(
    encoder_bundle: Path, number: signal.Signals
) -> None:
    body = b'{"inputs": "hello"}'
    head = f"POST /embed HTTP/1.1\r\nhost: m\r\ncontent-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n"
    with started(encoder_bundle) as (process, address):
        place = urllib.parse.urlsplit(address)
        with socket.create_connection((place.hostname, place.port)) as client:
            client.sendall(head.encode())
            assert client.recv(1000).startswith(b"HTTP/1.1 100")  # the server waits for the body
            process.send_signal(number)
            wait_until_refused(place.hostname, place.port)
            client.sendall(body)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        assert process.wait(START_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def wait_until_refused(host: str | None, port: int | None) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        try:
            socket.create_connection((host, port)).close()
        except ConnectionError:
            return
        time.sleep(0.01)
    raise AssertionError("the server still takes connections")


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
