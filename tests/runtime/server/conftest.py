"""Fixtures of the server's tests: models of tiny bundles, and clients that call the application without a socket."""

import contextlib
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import encort
from encort.server import ServerSettings, app

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Connect = Callable[..., contextlib.AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture(scope="session")
def encoder(encoder_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(encoder_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def classifier(classifier_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(classifier_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="session")
def heads(multi_head: Path) -> Iterator[encort.Model]:
    with encort.load(multi_head, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    """The system's Chromium."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        yield driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"] if os.geteuid() == 0 else [])


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
