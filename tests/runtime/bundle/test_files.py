"""Every session of a model has the weights that were checked, whatever happens to the folder meanwhile."""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import encort
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.identity import FileIdentity, MappedFile
from encort.runtime.common.errors import BundleFileChangedError, BundleFileMissingError
from encort.runtime.engine.session import Session

WEIGHTS = "cpu-fp32.weights"
TEXT = "my card is lost"


@pytest.fixture
def other_weights(bundle: Path) -> bytes:
    """Return other weights of the same size for the bundle's graph."""
    return bytes((np.fromfile(bundle / WEIGHTS, np.float32) * np.float32(0.5)).tobytes())


@pytest.fixture
def graph(bundle: Path) -> GraphFiles:
    opened = Bundle.open(bundle)
    return opened.graph(opened.manifest.variants[0])


def replace(file: Path, content: bytes) -> None:
    """Replace a file by rename, with the times of the old one."""
    status = file.stat()
    new = file.with_suffix(".new")
    new.write_bytes(content)
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(file)


def overwrite(file: Path, content: bytes) -> None:
    """Overwrite a file in place, with its old times."""
    status = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_folder(folder: Path, other: Path) -> None:
    """Replace a folder by rename, as `export --overwrite` does."""
    folder.rename(folder.with_suffix(".old"))
    shutil.copytree(other, folder)


def test_a_model_keeps_its_weights_when_its_folder_is_replaced(
    bundle: Path, other_weights: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = shutil.copytree(bundle, tmp_path / "other.bundle")
    (other / WEIGHTS).write_bytes(other_weights)
    with encort.load(bundle, threads=2) as model, caplog.at_level(logging.WARNING, "encort"):
        expected = model.embed([TEXT])
        replace_folder(bundle, other)
        alone = [model.embed([TEXT]) for _ in range(4)]
        together = model.embed([TEXT] * 40)
    np.testing.assert_allclose(np.concatenate([*alone, together]), np.repeat(expected, 44, axis=0), atol=1e-6)
    (record,) = caplog.records
    assert record.getMessage().startswith("single texts run on one core, because the model cannot be opened again: ")


@pytest.mark.parametrize("replaced", [False, True])
def test_the_second_session_opens_from_the_same_content(
    bundle: Path, classifier_bundle: Path, caplog: pytest.LogCaptureFixture, *, replaced: bool
) -> None:
    with encort.load(bundle, threads=2) as model, caplog.at_level(logging.WARNING, "encort"):
        model.embed([TEXT])
        if replaced:
            replace_folder(bundle, classifier_bundle)
        model.warm_up()
        assert model._engine._all_cores is not model._engine._single_core
    assert caplog.records == []


@pytest.mark.parametrize("change", [replace, overwrite])
def test_a_change_after_the_check_is_refused(
    graph: GraphFiles, bundle: Path, other_weights: bytes, change: Callable[[Path, bytes], None]
) -> None:
    change(bundle / WEIGHTS, other_weights)
    with pytest.raises(BundleFileChangedError, match=rf"{WEIGHTS} is not the file that was exported"):
        Session(graph, Bundle.open(bundle).manifest.variants[0], threads=1)


@pytest.mark.parametrize("change", [replace, overwrite])
@pytest.mark.parametrize("fails", [False, True])
def test_a_change_while_onnx_runtime_opens_the_graph_is_refused(
    graph: GraphFiles,
    bundle: Path,
    other_weights: bytes,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path, bytes], None],
    *,
    fails: bool,
) -> None:
    class InferenceSession(onnxruntime.InferenceSession):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            change(bundle / WEIGHTS, b"" if fails else other_weights)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", InferenceSession)
    with pytest.raises(BundleFileChangedError, match=rf"{WEIGHTS} changed while it was opened"):
        Session(graph, Bundle.open(bundle).manifest.variants[0], threads=1)


def test_a_file_that_is_gone_is_named(graph: GraphFiles, bundle: Path) -> None:
    (bundle / WEIGHTS).unlink()
    with pytest.raises(BundleFileMissingError, match=f"lacks {WEIGHTS}"):
        graph.check()


def test_files_that_did_not_change_are_read_once(graph: GraphFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("read again"))
    graph.check()


def test_files_with_other_times_and_the_same_content_are_accepted(graph: GraphFiles, bundle: Path) -> None:
    for file in bundle.iterdir():
        file.chmod(0o640)
        os.utime(file)
    with graph.unchanged() as path:
        assert path == graph.path


@pytest.mark.parametrize("sessions", [1, 2])
def test_a_model_refuses_to_run_over_weights_that_were_overwritten(
    bundle: Path, other_weights: bytes, sessions: int
) -> None:
    with encort.load(bundle, threads=2) as model:
        for _ in range(sessions):
            model.embed([TEXT])
        overwrite(bundle / WEIGHTS, other_weights)
        for texts in ([TEXT], [TEXT] * 40, [TEXT]):
            with pytest.raises(BundleFileChangedError, match="was overwritten while a model had it loaded: load the"):
                model.embed(texts)


def test_a_result_is_refused_if_the_weights_were_overwritten_in_its_run(
    graph: GraphFiles, bundle: Path, other_weights: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, run = Session(graph, Bundle.open(bundle).manifest.variants[0], threads=1), onnxruntime.InferenceSession.run

    def overwrite_and_run(*arguments: Any) -> Any:
        overwrite(bundle / WEIGHTS, other_weights)
        return run(*arguments)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", overwrite_and_run)
    ids = np.array([[2, 7, 3]])
    with pytest.raises(BundleFileChangedError, match="was overwritten"):
        session.run(["logits"], {"input_ids": ids, "token_type_ids": 0 * ids})


def test_weights_that_were_cut_are_refused(tmp_path: Path) -> None:
    file = tmp_path / WEIGHTS
    file.write_bytes(b"weights")
    mapped = MappedFile(file, FileIdentity.of(file.stat()), hashlib.sha256(b"weights").hexdigest())
    mapped.check()
    os.truncate(file, 3)
    with pytest.raises(BundleFileChangedError, match="was overwritten"):
        mapped.check()


def touch(folder: Path) -> None:
    os.utime(folder / WEIGHTS)


def move(folder: Path) -> None:
    folder.rename(folder.with_suffix(".moved"))


@pytest.mark.parametrize("change", [touch, move, shutil.rmtree])
def test_a_model_goes_on_if_the_content_of_its_weights_stays(bundle: Path, change: Callable[[Path], None]) -> None:
    with encort.load(bundle, threads=2) as model:
        model.warm_up()
        expected = model.embed([TEXT])
        change(bundle)
        np.testing.assert_array_equal(model.embed([TEXT]), expected)


def test_weights_are_read_again_once_after_a_change(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[Any] = []
    with encort.load(bundle, threads=1) as model:
        touch(bundle)
        monkeypatch.setattr(hashlib, "file_digest", partial(count_digests, digests, hashlib.file_digest))
        for _ in range(3):
            model.embed([TEXT])
    assert len(digests) == 1


def test_threads_that_wait_for_a_reading_do_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests: list[Any] = []
    entered, may_go_on = threading.Event(), threading.Event()

    def slow_digest(*arguments: Any) -> Any:
        entered.set()
        assert may_go_on.wait(10)
        return digest(*arguments)

    file = tmp_path / WEIGHTS
    file.write_bytes(b"weights")
    mapped = MappedFile(file, FileIdentity.of(file.stat()), hashlib.sha256(b"weights").hexdigest())
    touch(tmp_path)
    digest = partial(count_digests, digests, hashlib.file_digest)
    monkeypatch.setattr(hashlib, "file_digest", slow_digest)
    with ThreadPoolExecutor(4) as threads:
        checks = [threads.submit(mapped.check) for _ in range(4)]
        assert entered.wait(10)
        time.sleep(0.1)
        may_go_on.set()
        for check in checks:
            check.result(10)
    assert len(digests) == 1


def count_digests(digests: list[Any], digest: Callable[..., Any], *arguments: Any) -> Any:
    digests.append(arguments)
    return digest(*arguments)
