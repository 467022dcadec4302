"""Uploads to the hub."""

import json
import logging
from pathlib import Path

import pytest

from encort.runtime.common.errors import BundleFileChangedError, HubError, InputError, OutputExistsError
from encort.runtime.hub.download import open_bundle
from encort.runtime.hub.push import push
from tests.runtime.conftest import RunEncort
from tests.runtime.hub.fake_hub import FakeHub


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_pushed_bundle_comes_back_as_it_was(connected: FakeHub, encoder_bundle: Path) -> None:
    name = push(encoder_bundle, "org/new", private=True, message="The first one")
    assert name == f"hf://org/new@{connected.repos['org/new'].branches['main']}"
    assert connected.repos["org/new"].private
    assert connected.repos["org/new"].messages == ["first", "The first one"]
    assert set(connected.files("org/new")) == {*content(encoder_bundle), ".gitattributes", "README.md"}
    assert content(open_bundle(name).folder) == content(encoder_bundle)


def test_the_command_prints_the_name(hub: FakeHub, encort_with_hub: RunEncort, encoder_bundle: Path) -> None:
    done = encort_with_hub("push", encoder_bundle, "org/new", "--public")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"pushed: hf://org/new@{hub.repos['org/new'].branches['main']}\n"
    assert not hub.repos["org/new"].private


def test_files_that_the_manifest_does_not_name_stay_at_home(connected: FakeHub, bundle: Path) -> None:
    (bundle / "secrets.txt").write_text("a password")
    push(bundle, "org/new")
    assert "secrets.txt" not in connected.files("org/new")


def test_a_branch_is_created_and_main_stays(connected: FakeHub, encoder_bundle: Path) -> None:
    push(encoder_bundle, "org/new", revision="next")
    assert "encort.json" in connected.files("org/new", "next")
    assert set(connected.files("org/new")) == {".gitattributes"}


def test_a_new_push_deletes_the_files_of_the_earlier_bundle_alone(
    connected: FakeHub, encoder_bundle: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = content(encoder_bundle)
    manifest = json.loads(files["encort.json"])
    for name in ("cpu-int8.onnx", "README.md", "gone.onnx"):
        manifest["files"][name] = {"sha256": "0" * 64, "bytes": 3}
    old = {"encort.json": json.dumps(manifest).encode(), "cpu-int8.onnx": b"old", "notes.txt": b"mine"}
    connected.add("org/old", old | {"README.md": b"# Written by hand"})
    with caplog.at_level(logging.WARNING, "encort"):
        push(encoder_bundle, "org/old")
    assert connected.files("org/old") == {**files, "notes.txt": b"mine", "README.md": b"# Written by hand"}
    assert "README.md that encort did not write; it stays" in caplog.text


def test_the_page_of_an_earlier_push_is_written_again(
    connected: FakeHub, encoder_bundle: Path, classifier_bundle: Path
) -> None:
    push(classifier_bundle, "org/new")
    first = connected.files("org/new")["README.md"]
    push(encoder_bundle, "org/new")
    assert connected.files("org/new")["README.md"] != first


def test_a_repository_with_another_model_is_not_touched(connected: FakeHub, encoder_bundle: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": b"weights"}
    connected.add("org/model", files)
    with pytest.raises(OutputExistsError, match=r"org/model has config\.json and no encort\.json"):
        push(encoder_bundle, "org/model")
    assert connected.files("org/model") == files


def test_a_damaged_bundle_is_refused_before_the_hub_is_asked(connected: FakeHub, bundle: Path) -> None:
    with (bundle / "cpu-fp32.weights").open("r+b") as weights:
        weights.write(b"\xff\xff")
    with pytest.raises(BundleFileChangedError):
        push(bundle, "org/new")
    assert connected.repos == {}


@pytest.mark.parametrize(("repo", "token", "status"), [("others/model", None, 403), ("org/model", "wrong", 401)])
def test_a_push_that_is_not_allowed_says_so(
    connected: FakeHub, encoder_bundle: Path, repo: str, token: str | None, status: int
) -> None:
    with pytest.raises(HubError, match=f"the hub answers {status} .*log in with `hf auth login`, or set HF_TOKEN"):
        push(encoder_bundle, repo, token=token)
    assert connected.repos == {}


def test_a_hub_that_cannot_be_reached_is_named(
    hub_environment: dict[str, str], run_encort: RunEncort, encoder_bundle: Path
) -> None:
    offline = run_encort("push", encoder_bundle, "org/new", **{**hub_environment, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == HubError.exit_code
    assert offline.stderr == "encort: hf://org/new cannot be reached while HF_HUB_OFFLINE is set; unset it\n"
    nobody = "http://127.0.0.1:9"
    unreachable = run_encort("push", encoder_bundle, "org/new", **{**hub_environment, "HF_ENDPOINT": nobody})
    assert unreachable.returncode == HubError.exit_code
    assert f"encort: hf://org/new: the hub cannot be reached at {nobody} (" in unreachable.stderr


@pytest.mark.parametrize("repo", ["name", "org/name@v1", "a/b/c"])
def test_wrong_names_are_refused(connected: FakeHub, encoder_bundle: Path, repo: str) -> None:
    with pytest.raises(InputError):
        push(encoder_bundle, repo)
    assert connected.repos == {}
