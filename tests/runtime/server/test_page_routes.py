"""The application serves the page at `/`."""

import asyncio

import pytest

import encort
from encort.runtime.server.page import PAGE_FILES, SECURITY_HEADERS
from tests.runtime.server.conftest import Connect
from tests.runtime.server.page_server import KEY


@pytest.mark.parametrize("base_path", ["", "/models"])
def test_the_application_serves_the_page_without_a_key(connect: Connect, encoder: encort.Model, base_path: str) -> None:
    async def check() -> None:
        async with connect({"a": encoder}, api_keys=(KEY,), base_path=base_path) as client:
            for path, (content, media_type) in PAGE_FILES.items():
                answer = await client.get(base_path + path)
                assert (answer.status_code, answer.content) == (200, content)
                assert answer.headers["content-type"] == media_type
                assert answer.headers.items() >= SECURITY_HEADERS.items()

    asyncio.run(check())
