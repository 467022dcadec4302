"""Models that are proven before they serve, and replaced while they serve."""

import asyncio
import shutil
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

import encort
from encort.errors import FidelityError
from encort.runtime.bundle.manifest import GOLDEN_FILE
from encort.server import ServerSettings, app
from tests.runtime.server.server_process import START_S, started

KEY = {"authorization": "Bearer admin"}


@pytest.fixture
def copy(encoder_bundle: Path, tmp_path: Path) -> Path:
    """A bundle that a test may change."""
    return Path(shutil.copytree(encoder_bundle, tmp_path / "m.bundle"))


def test_info_says_what_the_golden_vectors_showed(encoder: encort.Model) -> None:
    async def check() -> None:
        async with client(app({"m": encoder})) as http:
            (served,) = (await http.get("/info")).json()["models"]
            assert served["golden_vectors"]["variant"] == encoder.variant.name
            assert served["golden_vectors"]["min_cosine"] > 0.99

    asyncio.run(check())


def test_a_model_that_fails_its_golden_vectors_is_not_served(
    encoder: encort.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encort.runtime.verification.golden.error_limit", lambda *_: -1.0)
    with pytest.raises(FidelityError, match="golden vectors"):
        app({"m": encoder})


def client(application: object) -> "Client":
    return Client(application)


class Client:
    """A client of a started application."""

    def __init__(self, application: object) -> None:
        self._application = application

    async def __aenter__(self) -> httpx.AsyncClient:
        self._lifespan = self._application.router.lifespan_context(self._application)  # type: ignore[attr-defined]
        await self._lifespan.__aenter__()
        transport = httpx.ASGITransport(self._application)  # type: ignore[arg-type]
        self._client = httpx.AsyncClient(transport=transport, base_url="http://server")
        return self._client

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()
        await self._lifespan.__aexit__(None, None, None)


def test_a_reload_answers_the_requests_before_and_those_after_it(encoder_bundle: Path, copy: Path) -> None:
    async def check() -> None:
        settings = ServerSettings(admin_keys=("admin",), max_wait_ms=100)
        with encort.load(encoder_bundle, threads=1) as model:
            application = app({"m": model}, settings=settings)
            expected = model.embed(["before", "after"])
            async with client(application) as http:
                before = asyncio.ensure_future(http.post("/embed", json={"inputs": "before"}))
                while not model.stats().queued_tokens:
                    await asyncio.sleep(0.001)
                answer = await http.post("/admin/models/m", json={"bundle": str(copy)}, headers=KEY)
                assert answer.status_code == 200
                assert answer.json()["golden_vectors"]["min_cosine"] > 0.99
                after = await http.post("/embed", json={"inputs": "after"})
                served = application.state.server.models.get().model
            assert served.bundle.folder == copy
            for vector, response in zip(expected, (await before, after), strict=True):
                unit = vector / np.linalg.norm(vector)
                np.testing.assert_allclose(response.json()[0], unit, rtol=1e-5, atol=1e-6)
            for closed in (model, served):
                with pytest.raises(encort.errors.ModelClosedError):
                    closed.embed(["closed"])

    asyncio.run(check())


def test_a_bundle_that_fails_leaves_the_model_before_in_service(
    encoder: encort.Model, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        application = app({"m": encoder}, settings=ServerSettings(admin_keys=("admin",)))
        async with client(application) as http:
            (copy / GOLDEN_FILE).write_bytes(b"damaged")
            monkeypatch.chdir(copy.parent)
            answers = [
                await http.post("/admin/models/m", json={"bundle": name}, headers=KEY)
                for name in (str(copy), "no.bundle")
            ]
            assert [answer.status_code for answer in answers] == [400, 400]
            assert "the model before serves on" in answers[0].json()["error"]["message"]
            assert application.state.server.models.get().model is encoder
            assert (await http.post("/embed", json={"inputs": "hello"})).status_code == 200

    asyncio.run(check())


def test_a_reload_needs_an_admin_key(encoder: encort.Model) -> None:
    async def statuses(*admin_keys: str) -> list[int]:
        settings = ServerSettings(api_keys=("user",), admin_keys=admin_keys)
        async with client(app({"m": encoder}, settings=settings)) as http:
            headers = [{}, {"authorization": "Bearer user"}]
            answers = [await http.post("/admin/models/m", headers=header) for header in headers]
            return [answer.status_code for answer in answers]

    assert asyncio.run(statuses("admin")) == [401, 401]
    assert asyncio.run(statuses()) == [404, 404]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_sighup_opens_the_bundles_again(encoder_bundle: Path, copy: Path, tmp_path: Path) -> None:
    current = tmp_path / "current.bundle"
    current.symlink_to(encoder_bundle)
    with started(current) as (process, address):
        assert httpx.post(f"{address}/embed", json={"inputs": "hello"}).status_code == 200
        current.unlink()
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        assert "the model before serves on" in process.stderr.readline()
        current.symlink_to(copy)
        process.send_signal(signal.SIGHUP)
        assert "golden vectors" in process.stderr.readline()
        assert httpx.post(f"{address}/embed", json={"inputs": "hello"}).status_code == 200


@pytest.mark.parametrize("wait_s", [0.5, 2.0])
def test_sigterm_during_the_start_ends_without_a_traceback(encoder_bundle: Path, wait_s: float) -> None:
    with started(encoder_bundle, wait=False) as (process, _):
        time.sleep(wait_s)
        process.terminate()
        assert process.wait(START_S) in (0, -signal.SIGTERM)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
