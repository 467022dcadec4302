"""Metrics, access logs, request ids, time limits and cancelled requests."""

import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import encort
from encort.runtime.server.operations import access_log
from tests.runtime.server.conftest import Connect

TEXTS = ["hello", "my card is lost", "where is it"]


def metrics(text: str) -> dict[tuple[str, ...], float]:
    """Return values by the name of a sample and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_there_before_the_first_request(connect: Connect, encoder: encort.Model) -> None:
    async def scrape() -> str:
        async with connect({"m": encoder, "other": encoder}, api_keys=("secret",)) as client:
            return (await client.get("/metrics")).text

    values = metrics(asyncio.run(scrape()))
    assert values["encort_requests_total", "other", "/v1/embeddings", "200"] == 0
    assert values["encort_request_queue_seconds_count", "m", "/embed"] == 0
    assert ("encort_texts_total", "m") in values


def test_requests_are_counted_by_model_route_and_status(connect: Connect, encoder: encort.Model) -> None:
    async def scrape() -> str:
        async with connect({"m": encoder}, te_metrics=True, aliases={"alias": "m"}) as client:
            await client.post("/embed", json={"inputs": TEXTS})
            await client.post("/v1/embeddings", json={"model": "alias", "input": ""})
            await client.post("/v1/embeddings", json={"model": "unknown", "input": "hello"})
            await client.get("/no/such/route")
            return (await client.get("/metrics")).text

    values = metrics(asyncio.run(scrape()))
    tokens = encoder.tokenize(TEXTS).tokens_per_text.sum()
    assert values["encort_requests_total", "m", "/embed", "200"] == 1
    assert values["encort_requests_total", "m", "/v1/embeddings", "400"] == 1
    assert values["encort_requests_total", "", "/v1/embeddings", "404"] == 1
    assert values["encort_requests_total", "", "other", "404"] == 1
    assert values["encort_request_texts_sum", "m", "/embed"] == len(TEXTS)
    assert values["encort_request_tokens_sum", "m", "/embed"] == tokens
    assert values["encort_request_run_seconds_sum", "m", "/embed"] > 0
    assert values["te_request_count", "m", "/embed", "200"] == 1
    assert values["te_request_failure", "validation", "m", "/v1/embeddings", "400"] == 1
    assert values["te_request_inference_duration_count", "m", "/embed"] == 1
    assert values["te_request_input_length_sum", "m", "/embed"] == tokens
    assert values["te_batch_next_size_count", "m"] == encoder.stats().runs
    assert values["te_queue_size",] == 1, "the scrape itself"


@pytest.fixture
def log_lines() -> Iterator[list[dict[str, Any]]]:
    lines: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, entry: logging.LogRecord) -> None:
            lines.append(json.loads(entry.getMessage()))

    handler, level = Keep(), access_log.LOG.level
    access_log.LOG.addHandler(handler)
    access_log.LOG.setLevel(logging.INFO)
    yield lines
    access_log.LOG.removeHandler(handler)
    access_log.LOG.setLevel(level)


def test_a_request_is_one_line_of_the_log_without_its_text(
    connect: Connect, encoder: encort.Model, log_lines: list[dict[str, Any]]
) -> None:
    async def ask() -> httpx.Response:
        async with connect({"m": encoder}) as client:
            return await client.post("/embed", json={"inputs": TEXTS}, headers={"x-request-id": "abc"})

    answer = asyncio.run(ask())
    (line,) = log_lines
    assert line.items() >= {"request_id": "abc", "path": "/embed", "status": 200, "model": "m", "texts": 3}.items()
    assert 0 < line["run_ms"] < line["total_ms"]
    assert 0 < line["tokenization_ms"] < line["total_ms"]
    assert line["queue_ms"] <= line["total_ms"]
    assert line["tokens"] == int(answer.headers["x-compute-tokens"])
    assert "card" not in json.dumps(line)


def test_times_are_headers_of_the_answer(connect: Connect, encoder: encort.Model) -> None:
    async def ask() -> httpx.Response:
        async with connect({"m": encoder}) as client:
            return await client.post("/v1/embeddings", json={"model": "m", "input": TEXTS})

    headers = asyncio.run(ask()).headers
    times = [int(headers[f"x-{name}-time"]) for name in ("total", "tokenization", "queue", "inference")]
    assert times[0] >= max(times[1:])
    assert int(headers["x-compute-tokens"]) > 0


@pytest.mark.parametrize("given", ["", "two words", "a" * 200])
def test_a_wrong_request_id_is_replaced(connect: Connect, encoder: encort.Model, given: str) -> None:
    async def ask() -> list[str]:
        async with connect({"m": encoder}) as client:
            answers = [await client.get("/no", headers={"x-request-id": given}) for _ in range(2)]
            return [answer.headers["x-request-id"] for answer in answers]

    ids = asyncio.run(ask())
    assert len({*ids, given}) == 3


def test_a_request_without_a_result_in_time_gets_504_and_is_not_run(connect: Connect, encoder: encort.Model) -> None:
    async def ask() -> list[httpx.Response]:
        async with connect({"m": encoder}, max_wait_ms=10_000) as client:
            headers = {"x-request-timeout-ms": "20"}
            return [
                await client.post("/embed", json={"inputs": "a late text"}, headers=headers),
                await client.post("/v1/embeddings", json={"model": "m", "input": TEXTS}, headers=headers),
            ]

    runs = encoder.stats().runs
    of_tei, of_openai = asyncio.run(ask())
    assert (of_tei.status_code, of_openai.status_code) == (504, 504)
    assert "20 ms" in of_tei.json()["error"]
    assert of_openai.json()["error"]["type"] == "server_error"
    assert encoder.stats().runs == runs


@pytest.mark.parametrize("given", ["soon", "0", "-1", "nan"])
def test_a_wrong_time_limit_is_refused(connect: Connect, encoder: encort.Model, given: str) -> None:
    async def ask() -> httpx.Response:
        async with connect({"m": encoder}) as client:
            headers = {"x-request-timeout-ms": given}
            return await client.post("/embed", json={"inputs": "hello"}, headers=headers)

    answer = asyncio.run(ask())
    assert answer.status_code == 422
    assert "x-request-timeout-ms must be a number above 0" in answer.json()["error"]


def test_the_server_has_a_time_limit_of_its_own(connect: Connect, encoder: encort.Model) -> None:
    async def ask() -> httpx.Response:
        async with connect({"m": encoder}, max_wait_ms=10_000, timeout_s=0.05) as client:
            headers = {"x-request-timeout-ms": "9000"}
            return await client.post("/embed", json={"inputs": "another late text"}, headers=headers)

    assert asyncio.run(ask()).status_code == 504


def test_a_client_that_disconnects_takes_all_its_texts_along(connect: Connect, encoder: encort.Model) -> None:
    async def leave() -> None:
        async with connect({"m": encoder}, max_wait_ms=10_000) as client:
            request = asyncio.ensure_future(client.post("/embed", json={"inputs": ["one leaves", "two leave"]}))
            while not encoder.stats().queued_tokens:
                await asyncio.sleep(0.001)
            request.cancel()
            while encoder.stats().queued_tokens:
                await asyncio.sleep(0.001)

    runs = encoder.stats().runs
    asyncio.run(asyncio.wait_for(leave(), 5))
    assert encoder.stats().runs == runs


def test_the_metrics_of_the_dashboard_exist(connect: Connect, encoder: encort.Model) -> None:
    async def scrape() -> str:
        async with connect({"m": encoder}) as client:
            return (await client.get("/metrics")).text

    dashboard = (Path(__file__).parents[3] / "examples/serve/grafana/encort.json").read_text(encoding="utf-8")
    names = set(re.findall(r"\bencort_\w+", dashboard))
    assert len(names) > 10
    assert names <= {name for name, *_ in metrics(asyncio.run(scrape()))}
