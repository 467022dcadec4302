"""The application within another one, which mounts it at a path."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import encort
from encort.server import ServerSettings, app

PLACE = "/api/v1/encoders"


@contextlib.asynccontextmanager
async def mounted(model: encort.Model, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """Start an application that mounts the server and runs its lifespan."""
    inner = app({"m": model}, settings=ServerSettings(**settings))  # type: ignore[arg-type]
    routes = [Route("/own", lambda _: PlainTextResponse("own")), Mount(PLACE, inner)]
    outer = Starlette(routes=routes, lifespan=lambda _: inner.router.lifespan_context(inner))
    async with (
        outer.router.lifespan_context(outer),
        httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://server") as client,
    ):
        yield client


@pytest.mark.parametrize("base_path", ["", "/models"])
def test_a_mounted_server_answers_like_one_of_its_own(encoder: encort.Model, base_path: str) -> None:
    async def check() -> None:
        place = PLACE + base_path
        async with mounted(encoder, base_path=base_path) as client:
            assert (await client.get("/own")).text == "own"
            answer = (await client.post(f"{place}/v1/embeddings", json={"model": "m", "input": "hello"})).json()
            (vector,) = encoder.embed(["hello"])
            np.testing.assert_allclose(answer["data"][0]["embedding"], vector, rtol=1e-5, atol=1e-6)
            assert (await client.get(f"{place}/")).text.startswith("<!doctype html>")
            assert (await client.get(f"{place}/page/main.js")).status_code == 200
            assert (await client.get(f"{place}/openapi.json")).json()["servers"] == [{"url": place}]

    asyncio.run(check())


@pytest.mark.parametrize("base_path", ["", "/v1"])
def test_unknown_routes_of_a_mounted_server_fail_in_their_own_form(encoder: encort.Model, base_path: str) -> None:
    async def check() -> None:
        place = PLACE + base_path
        async with mounted(encoder, base_path=base_path) as client:
            assert (await client.get(place, follow_redirects=True)).status_code == 200
            assert (await client.get(f"{place}/x")).json().keys() == {"error", "error_type"}
            assert (await client.get(f"{place}/v1/x")).json()["error"].keys() == {"message", "type", "param", "code"}
            assert (await client.get(f"{place}/v2/x")).json().keys() == {"error"}

    asyncio.run(check())


def test_public_routes_of_a_mounted_server_need_no_key(encoder: encort.Model) -> None:
    async def check() -> None:
        async with mounted(encoder, api_keys=("secret",)) as client:
            for path in ("/health", "/v2/health/ready", "/openapi.json", "/", "/docs"):
                assert (await client.get(PLACE + path)).status_code == 200
            assert (await client.get(f"{PLACE}/v1/models")).status_code == 401

    asyncio.run(check())


def test_a_mounted_server_that_was_not_started_says_so(encoder: encort.Model) -> None:
    async def check() -> None:
        outer = Starlette(routes=[Mount(PLACE, app({"m": encoder}))])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(outer), base_url="http://server") as client:
            answer = await client.post(f"{PLACE}/embed", json={"inputs": "hello"})
            assert (answer.status_code, answer.json()["error_type"]) == (503, "Unhealthy")
            assert (await client.get(f"{PLACE}/health")).status_code == 503

    asyncio.run(check())
