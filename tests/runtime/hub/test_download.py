"""Bundles of the hub: what is downloaded, what is kept, and what is refused."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

import encort
from encort.integrations.lazy_model import LazyModel
from encort.integrations.sentence_transformers import SentenceTransformer
from encort.runtime.common.errors import (
    BundleFileChangedError,
    BundleFileMissingError,
    BundlePathError,
    HubError,
    MissingExtraError,
)
from encort.runtime.hub.client import translated
from encort.runtime.hub.download import open_bundle
from encort.runtime.hub.names import HubName
from tests.runtime.conftest import RunEncort
from tests.runtime.hub.fake_hub import FakeHub

NAME = "hf://org/encoder"
TEXT = "my card is lost"
LOADED = {"encort.json", "tokenizer.json", "golden.npz", "cpu-fp32.onnx", "cpu-fp32.weights"}


def embedded(bundle: str | Path) -> np.ndarray:
    with encort.load(bundle, threads=1) as model:
        return model.embed([TEXT])


def test_a_bundle_of_the_hub_gives_the_vectors_of_its_folder(published: FakeHub, encoder_bundle: Path) -> None:
    np.testing.assert_array_equal(embedded(NAME), embedded(encoder_bundle))
    assert dict(published.downloads) == dict.fromkeys(LOADED, 1)


def test_only_the_files_that_are_needed_are_downloaded_each_once(published: FakeHub) -> None:
    open_bundle(NAME, files=lambda _: ())
    assert published.downloads == {"encort.json": 1}
    embedded(NAME)
    assert set(published.downloads) == LOADED
    open_bundle(NAME)
    assert dict(published.downloads) == dict.fromkeys(published.files("org/encoder"), 1)


@pytest.mark.usefixtures("published")
def test_the_files_take_their_space_once() -> None:
    bundle = open_bundle(NAME)
    assert {path.stat().st_nlink for path in bundle.folder.iterdir()} == {2}
    assert not any(path.is_symlink() for path in bundle.folder.iterdir())


@pytest.mark.usefixtures("published")
def test_without_hard_links_the_files_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    bundle = open_bundle(NAME)
    assert {path.name for path in bundle.folder.iterdir()} == {"encort.json", *bundle.manifest.files}


def test_a_revision_is_a_branch_or_a_commit(published: FakeHub) -> None:
    repo = published.repos["org/encoder"]
    first = repo.branches["next/8bit"] = repo.branches["main"]
    repo.commit("main", {"README.md": b"moved"}, "second")
    for revision in ("next/8bit", first):
        assert open_bundle(f"{NAME}@{revision}").folder.name == first
    with pytest.raises(BundleFileMissingError):
        open_bundle(NAME)


def test_a_model_is_opened_again_from_the_hub_at_its_commit(published: FakeHub, cache: Path) -> None:
    repo = published.repos["org/encoder"]
    first = repo.branches["main"]
    with encort.load(NAME, threads=1) as model:
        expected, saved, lazy = model.embed([TEXT]), pickle.dumps(model), LazyModel(model, {})
    repo.commit("main", {"README.md": b"moved"}, "second")
    shutil.rmtree(cache)  # as on another machine
    with pickle.loads(saved) as copy:
        np.testing.assert_array_equal(copy.embed([TEXT]), expected)
    assert lazy.bundle == f"{NAME}@{first}"


def test_a_drop_in_for_an_open_model_has_the_small_files_of_its_commit(published: FakeHub) -> None:
    with encort.load(NAME, threads=1) as opened:
        published.repos["org/encoder"].commit("main", {"README.md": b"moved"}, "second")
        model = SentenceTransformer(opened)
        assert model.config.model_type == "bert"
        assert model.tokenizer.cls_token == "[CLS]"
        assert model.tokenizer([TEXT])["input_ids"] == [opened.tokenize([TEXT]).ids.tolist()]


def test_a_cached_bundle_needs_no_network(published: FakeHub, go_offline: Callable[[], None]) -> None:
    embedded(NAME)
    go_offline()
    published.downloads.clear()
    embedded(NAME)
    assert not published.downloads
    with pytest.raises(HubError, match="not in the hub's cache on this machine, and HF_HUB_OFFLINE is set"):
        encort.load("hf://org/other")


def test_the_command_line_reads_the_hub_where_it_reads_a_folder(published: FakeHub, encort_with_hub: RunEncort) -> None:
    done = encort_with_hub("embed", NAME, TEXT)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)["embedding"]) == 40
    assert encort_with_hub("inspect", NAME, HF_HUB_OFFLINE="1").stdout.startswith("task ")
    assert encort_with_hub("verify", NAME).returncode == 0
    assert dict(published.downloads) == dict.fromkeys(published.files("org/encoder"), 1)


def test_processes_that_ask_at_the_same_time_download_a_file_once(
    published: FakeHub, hub_environment: dict[str, str]
) -> None:
    published.delay_s = 0.5
    code = f"from encort.runtime.hub.download import open_bundle; print(open_bundle({NAME!r}).folder)"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | hub_environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(8)
    ]
    results = {process.communicate(timeout=120) for process in running}
    assert len(results) == 1, results
    assert dict(published.downloads) == dict.fromkeys(published.files("org/encoder"), 1)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("hf://org/missing", HubError, "the hub shows no org/missing"),
        ("hf://org/encoder@v9", HubError, "org/encoder has no revision 'v9'"),
        ("hf://org/plain", BundleFileMissingError, r"has no encort\.json, so it is not a bundle of encort"),
        ("hf://org/private", HubError, "private or gated and your token may not read it"),
    ],
)
def test_what_the_hub_does_not_give_is_one_clear_error(
    published: FakeHub,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    published.add("org/plain", {"config.json": b"{}"})
    published.add("org/private", published.files("org/encoder"), private=True)
    with pytest.raises(error, match=message):
        encort.load(name)
    assert [path for path in cache.rglob("*") if path.is_file() and not path.name.startswith("CACHEDIR")] == []


def test_a_private_bundle_needs_the_token(published: FakeHub) -> None:
    published.add("org/private", published.files("org/encoder"), private=True)
    assert open_bundle("hf://org/private").manifest.embedding is not None


def test_an_unreachable_hub_is_named(connected: FakeHub) -> None:
    reached = f"and the hub cannot be reached at {connected.url}"
    with pytest.raises(HubError, match=reached), translated(HubName("org/encoder")):
        raise LocalEntryNotFoundError("no connection")


def test_an_unreachable_hub_is_asked_once(encort_with_hub: RunEncort) -> None:
    done = encort_with_hub("embed", NAME, TEXT, HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == HubError.exit_code
    assert done.stderr.splitlines() == [
        f"encort: {NAME} is not in the hub's cache on this machine, and the hub cannot be reached at http://127.0.0.1:9"
    ]


def test_a_broken_connection_leaves_no_half_file(published: FakeHub, cache: Path) -> None:
    published.cut.add("cpu-fp32.weights")
    with pytest.raises(HubError, match="org/encoder"):
        encort.load(NAME)
    assert list(cache.rglob("cpu-fp32.weights")) == []
    published.cut.clear()
    embedded(NAME)


@pytest.mark.usefixtures("published")
def test_a_full_disk_is_one_clear_error(hub_environment: dict[str, str]) -> None:
    code = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000));"
        "from encort.runtime.cli.main import main; main()"
    )
    command = [sys.executable, "-c", code, "embed", NAME, TEXT]
    done = subprocess.run(command, env=os.environ | hub_environment, capture_output=True, text=True, check=False)
    assert done.returncode == HubError.exit_code, done.stderr
    assert "cannot be written: File too large" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../b"])
def test_a_manifest_that_names_paths_is_refused_before_they_are_asked_for(published: FakeHub, path: str) -> None:
    files = dict(published.files("org/encoder"))
    manifest = json.loads(files["encort.json"])
    manifest["files"][path] = {"sha256": "0" * 64, "bytes": 1}
    published.add("org/evil", files | {"encort.json": json.dumps(manifest).encode()})
    with pytest.raises(BundlePathError):
        open_bundle("hf://org/evil")
    assert published.downloads == {"encort.json": 1}


def test_a_file_in_a_folder_of_the_bundle_keeps_its_place(published: FakeHub) -> None:
    files = dict(published.files("org/encoder"))
    manifest = json.loads(files["encort.json"])
    manifest["files"]["onnx/model.onnx"] = manifest["files"]["cpu-fp32.onnx"]
    files |= {"encort.json": json.dumps(manifest).encode(), "onnx/model.onnx": files["cpu-fp32.onnx"]}
    published.add("org/folders", files)
    assert (open_bundle("hf://org/folders").folder / "onnx" / "model.onnx").read_bytes() == files["cpu-fp32.onnx"]


def test_a_file_that_differs_from_the_manifest_is_refused(published: FakeHub) -> None:
    files = published.files("org/encoder")
    published.add("org/changed", files | {"tokenizer.json": files["tokenizer.json"] + b" "})
    with pytest.raises(BundleFileChangedError):
        encort.load("hf://org/changed")


def test_a_folder_needs_neither_the_hub_nor_its_package(encoder_bundle: Path) -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None; import encort;"
        "encort.load(sys.argv[1]).embed(['a']); print('done')"
    )
    done = subprocess.run([sys.executable, "-c", code, encoder_bundle], capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


def test_the_hub_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encort.runtime.common.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r'pip install "encort\[hub\]"'):
        encort.load(NAME)
