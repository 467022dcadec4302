"""Bundles of object stores are fetched once per machine, and checked."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import encort
from encort.errors import BundleError, BundleFileMissingError, HubError
from encort.runtime.hub.download import open_bundle
from encort.runtime.hub.store import CACHE_VARIABLE

fsspec = pytest.importorskip("fsspec")

COUNTING = """
import os, sys
import fsspec
from fsspec.implementations.local import LocalFileSystem

class Counted(LocalFileSystem):
    protocol = "counted"
    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.replace("counted://", "file://"))
    def _open(self, path, mode="rb", **options):
        with open(os.environ["COUNTS"], "a") as counts:
            counts.write(os.path.basename(path) + "\\n")
        return super()._open(path, mode, **options)

fsspec.register_implementation("counted", Counted)
from encort.runtime.hub.download import open_bundle
print(open_bundle("counted://" + sys.argv[1]).folder)
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of fetched bundles, a new one for each test."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_stored_bundle_gives_the_results_of_its_folder(encoder_bundle: Path, cache: Path) -> None:
    with (
        encort.load(encoder_bundle, threads=1) as folder,
        encort.load(f"file://{encoder_bundle}/", threads=1) as stored,
    ):
        np.testing.assert_array_equal(stored.embed(["hello"]), folder.embed(["hello"]))
        assert stored.bundle.folder.is_relative_to(cache)
        with pickle.loads(pickle.dumps(stored)) as copy:
            assert copy.bundle.source == f"file://{encoder_bundle}"


def test_eight_processes_fetch_once(encoder_bundle: Path, tmp_path: Path) -> None:
    environment = os.environ | {"COUNTS": str(tmp_path / "counts")}
    command = [sys.executable, "-c", COUNTING, str(encoder_bundle)]
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(8)]
    folders = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 8
    assert len(folders) == 1
    opened = (tmp_path / "counts").read_text().split()
    manifests = [name for name in opened if name == "encort.json"]
    assert len(manifests) == 8  # it says whether the bundle is still the same one
    assert len(opened) - 8 == len(set(opened)) - 1


def test_a_file_with_another_hash_is_refused_and_not_kept(encoder_bundle: Path, tmp_path: Path, cache: Path) -> None:
    bundle = Path(shutil.copytree(encoder_bundle, tmp_path / "copy.bundle"))
    good = (bundle / "tokenizer.json").read_bytes()
    (bundle / "tokenizer.json").write_bytes(good + b" ")
    with pytest.raises(BundleError, match=r"tokenizer\.json has another hash"):
        open_bundle(f"file://{bundle}")
    assert not list(cache.rglob("tokenizer.json*"))
    (bundle / "tokenizer.json").write_bytes(good)
    open_bundle(f"file://{bundle}")


def test_a_changed_bundle_is_another_one(encoder_bundle: Path, classifier_bundle: Path, tmp_path: Path) -> None:
    first = Path(shutil.copytree(encoder_bundle, tmp_path / "copy.bundle"))
    before = open_bundle(f"file://{first}").folder
    shutil.rmtree(first)
    shutil.copytree(classifier_bundle, first)
    after = open_bundle(f"file://{first}")
    assert after.folder != before
    assert after.manifest.heads


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("file:///nowhere/x.bundle", BundleFileMissingError, "lacks a file of a bundle"),
        ("nonsense://x.bundle", HubError, "cannot be fetched: Protocol not known: nonsense"),
    ],
)
def test_what_cannot_be_fetched_is_one_error(url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_bundle(url)
