import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest

import encort
from tests.runtime.server.conftest import Connect

TEXTS = ["hello", "my card is lost"]


def post(connect: Connect, models: dict[str, encort.Model], path: str, body: Any, **settings: Any) -> Any:
    """Send one request to an application of its own; content that is bytes is sent as it is."""

    async def send() -> Any:
        async with connect(models, **settings) as client:
            if isinstance(body, bytes):
                return await client.post(path, content=body)
            return await client.post(path, json=body)

    return asyncio.run(send())


def test_embeddings_of_tei_equal_those_of_the_model(connect: Connect, encoder: encort.Model) -> None:
    answer = post(connect, {"m": encoder}, "/embed", {"inputs": TEXTS})
    expected = encoder.embed(TEXTS)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(answer.json(), np.float32), expected, rtol=1e-5, atol=1e-6)
    assert answer.headers["x-compute-tokens"] == str(encoder.tokenize(TEXTS).tokens_per_text.sum())


def test_one_text_of_tei_gives_a_list_of_one(connect: Connect, encoder: encort.Model) -> None:
    assert len(post(connect, {"m": encoder}, "/embed", {"inputs": "hello"}).json()) == 1


def test_base64_is_the_bytes_of_the_float32_values(connect: Connect, encoder: encort.Model) -> None:
    body = {"model": "m", "input": TEXTS, "encoding_format": "base64"}
    answer = post(connect, {"m": encoder}, "/v1/embeddings", body).json()
    vectors = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in answer["data"]]
    np.testing.assert_allclose(vectors, encoder.embed(TEXTS), rtol=1e-5, atol=1e-6)
    tokens = int(encoder.tokenize(TEXTS).tokens_per_text.sum())
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.parametrize("many", [False, True])
def test_token_ids_stand_for_texts(connect: Connect, encoder: encort.Model, many: bool) -> None:
    ids = encoder.tokenize(["hello"]).ids.tolist()
    body = {"model": "m", "input": [ids] if many else ids}
    answer = post(connect, {"m": encoder}, "/v1/embeddings", body).json()
    np.testing.assert_allclose(answer["data"][0]["embedding"], encoder.embed(["hello"])[0], rtol=1e-5, atol=1e-6)


def test_dimensions_are_cut_and_then_normalized(connect: Connect, encoder: encort.Model) -> None:
    answer = post(connect, {"m": encoder}, "/embed", {"inputs": "hello", "dimensions": 3}).json()
    cut = encoder.embed(["hello"])[0, :3]
    np.testing.assert_allclose(answer[0], cut / np.linalg.norm(cut), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 422, "Validation"),
        (b'{"inputs": "\\ud800"}', 422, "Validation"),
        ({"inputs": 3}, 422, "Validation"),
        ({"inputs": ["a", 1]}, 422, "Validation"),
        ({"inputs": ["a", "b", "c", "d"]}, 422, "Validation"),
        ({"inputs": "a", "dimensions": 0}, 422, "Validation"),
        ({"inputs": "a", "dimensions": 1000}, 422, "Validation"),
        ({"inputs": "a", "prompt_name": "none"}, 422, "Validation"),
        ({"inputs": "hello " * 300, "truncate": False}, 422, "Validation"),
        ({"inputs": [[10**6]]}, 422, "Validation"),
        ({"inputs": [[2**70]]}, 422, "Validation"),
        ({"inputs": []}, 400, "Empty"),
        ({"inputs": ""}, 400, "Empty"),
        (b" " * 5000, 413, "Validation"),
    ],
)
def test_bad_requests_fail_in_the_form_of_tei(
    connect: Connect, encoder: encort.Model, body: Any, status: int, kind: str
) -> None:
    answer = post(connect, {"m": encoder}, "/embed", body, max_items=3, max_body_bytes=4000)
    assert (answer.status_code, answer.json()["error_type"]) == (status, kind), answer.json()
    assert "hello" not in answer.text


def test_limits_are_named(connect: Connect, encoder: encort.Model) -> None:
    assert "max_items=3" in post(connect, {"m": encoder}, "/embed", {"inputs": ["a"] * 4}, max_items=3).text
    assert "max_tokens=9" in post(connect, {"m": encoder}, "/embed", {"inputs": ["hello"] * 4}, max_tokens=9).text
    assert "max_body_bytes=9" in post(connect, {"m": encoder}, "/embed", {"inputs": "a"}, max_body_bytes=9).text


def test_an_unknown_model_fails_in_the_form_of_openai(connect: Connect, encoder: encort.Model) -> None:
    answer = post(connect, {"m": encoder}, "/v1/embeddings", {"model": "x", "input": "a"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


def test_an_alias_names_a_model(connect: Connect, encoder: encort.Model) -> None:
    body = {"model": "text-embedding-3-small", "input": "a"}
    answer = post(connect, {"m": encoder}, "/v1/embeddings", body, aliases={"text-embedding-3-small": "m"})
    assert answer.json()["model"] == "m"


def test_a_request_that_a_full_queue_refuses_may_be_tried_again(connect: Connect, encoder: encort.Model) -> None:
    async def answers() -> list[httpx.Response]:
        limit = encoder.manifest.max_length
        async with connect({"m": encoder}, queue_tokens=limit, max_wait_ms=300) as client:
            bodies = [{"inputs": f"{number} " * 60} for number in range(10)]
            return await asyncio.gather(*(client.post("/embed", json=body) for body in bodies))

    answered = asyncio.run(answers())
    assert {answer.status_code for answer in answered} == {200, 429}
    assert {answer.headers.get("retry-after") for answer in answered if answer.status_code == 429} == {"1"}


def test_a_batch_that_is_larger_than_the_queue_is_run_in_parts(connect: Connect, encoder: encort.Model) -> None:
    texts = [f"{number} " * 60 for number in range(20)]
    answer = post(connect, {"m": encoder}, "/embed", {"inputs": texts}, queue_tokens=encoder.manifest.max_length)
    np.testing.assert_allclose(answer.json(), encoder.embed(texts), rtol=1e-5, atol=1e-6)


def test_the_beginning_of_a_long_text_is_cut_on_request(connect: Connect, encoder: encort.Model) -> None:
    text = "my card is lost " * 300 + "hello"
    body = {"inputs": text, "truncation_direction": "left"}
    answer = post(connect, {"m": encoder}, "/embed", body).json()
    vector = encoder.embed([text], overflow="truncate_left")[0]
    np.testing.assert_allclose(answer[0], vector / np.linalg.norm(vector), rtol=1e-5, atol=1e-6)
    assert not np.allclose(vector, encoder.embed([text])[0], atol=1e-3)
