"""Fixtures of the server's tests: models of tiny bundles, and clients that call the application without a socket."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

import encort
from encort.server import ServerSettings, app

Connect = Callable[..., contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def encoder(encoder_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(encoder_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def classifier(classifier_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(classifier_bundle, threads=1) as model:
        yield model


@pytest.fixture
def connect() -> Connect:
    """`async with connect({"name": model}, max_items=3) as client` calls a started application."""

    @contextlib.asynccontextmanager
    async def connect(
        models: dict[str, encort.Model], *, aliases: dict[str, str] | None = None, **settings: object
    ) -> AsyncIterator[httpx.AsyncClient]:
        application = app(models, aliases=aliases, settings=ServerSettings(**settings))  # type: ignore[arg-type]
        transport = httpx.ASGITransport(application)
        async with (
            application.router.lifespan_context(application),
            httpx.AsyncClient(transport=transport, base_url="http://server") as client,
        ):
            yield client

    return connect
