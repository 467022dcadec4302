"""A hub on this machine, and this process or others as its clients."""

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest

from tests.runtime.conftest import RunEncort
from tests.runtime.hub.fake_hub import TOKEN, FakeHub


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """An empty hub."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield hub
    hub.server.shutdown()
    thread.join()
    hub.server.server_close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Return the home folder of the hub's client."""
    return tmp_path / "home"


@pytest.fixture
def hub_environment(hub: FakeHub, cache: Path) -> dict[str, str]:
    """Environment of a process that uses the hub, with a token."""
    return {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_TOKEN": TOKEN,
    }


@pytest.fixture
def encort_with_hub(run_encort: RunEncort, hub_environment: dict[str, str]) -> RunEncort:
    """`encort_with_hub("embed", "hf://org/name", "a text", HF_TOKEN="")` runs the command with the hub."""
    return functools.partial(run_encort, **hub_environment)


@pytest.fixture
def connected(hub: FakeHub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The hub, with this process as its client. The client reads its environment when it is imported."""
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    for module in (constants, huggingface_hub.file_download):  # the latter before 1.0
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    _close_session()  # it may have been opened offline
    yield hub
    _close_session()


def _close_session() -> None:
    utils = huggingface_hub.utils
    close = getattr(utils, "close_session", None) or utils.reset_sessions  # before 1.0
    close()


@pytest.fixture
def go_offline(connected: FakeHub, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:  # noqa: ARG001 - set up first
    """`go_offline()` does what HF_HUB_OFFLINE=1 does at the start of a process."""

    def go() -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        _close_session()

    return go


@pytest.fixture
def published(connected: FakeHub, encoder_bundle: Path) -> FakeHub:
    """The hub with a bundle of an encoder, `org/encoder`."""
    connected.add("org/encoder", {path.name: path.read_bytes() for path in encoder_bundle.iterdir()})
    return connected
