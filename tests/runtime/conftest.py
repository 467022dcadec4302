"""Bundles to damage, sessions that only write down what they run, and the command line as a shell runs it."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import encort
from encort.runtime.bundle.bundle import sha256
from encort.runtime.bundle.manifest import Device, Layout, Precision, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array

LABELS = ["card_lost", "change_pin", "hello"]
HEADS = {
    "topics": ("AutoModelForSequenceClassification", {"id2label": dict(enumerate(LABELS))}),
    "moods": (
        "AutoModelForSequenceClassification",
        {"id2label": dict(enumerate(LABELS)), "problem_type": "multi_label_classification"},
    ),
    "stars": ("AutoModelForSequenceClassification", {"num_labels": 1}),
    "follows": ("AutoModelForNextSentencePrediction", {}),
    "tags": ("AutoModelForTokenClassification", {"id2label": {0: "O", 1: "B-x", 2: "I-x"}}),
    "answers": ("AutoModelForQuestionAnswering", {}),
}

Plain = dict[str, Any]
EditManifest = Callable[[Callable[[Plain], Any]], None]
ReplaceFile = Callable[[str, bytes], None]
RunEncort = Callable[..., "subprocess.CompletedProcess[str]"]
Held = AbstractContextManager[tuple[threading.Event, threading.Event]]


class Fakes:
    """Sessions that add ids up; `hold(id)` makes runs with that id wait for the event that it gives.

    Attributes:
        opened: Threads of every session.
        runs: Ids of every run.
        threads: Threads of the session of every run.
        errors: What a run with that id raises.
    """

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.runs: list[list[list[int]]] = []
        self.threads: list[int] = []
        self.holds: dict[int, threading.Event] = {}
        self.errors: dict[int, BaseException] = {}
        self._began = threading.Condition()

    def open(self, threads: int) -> "FakeSession":
        self.opened.append(threads)
        return FakeSession(self, threads)

    def hold(self, token: int) -> threading.Event:
        return self.holds.setdefault(token, threading.Event())

    def release(self) -> None:
        for free in self.holds.values():
            free.set()

    def wait(self, *, runs: int) -> None:
        """Until so many runs have begun."""
        with self._began:
            assert self._began.wait_for(lambda: len(self.runs) >= runs, timeout=10)

    def begin(self, ids: Int64Array, threads: int) -> None:
        with self._began:
            self.runs.append(ids.tolist())
            self.threads.append(threads)
            self._began.notify_all()


class FakeSession:
    def __init__(self, fakes: Fakes, threads: int) -> None:
        self._fakes, self._threads = fakes, threads

    def run(self, outputs: Sequence[str], inputs: Mapping[str, Int64Array]) -> list[FloatArray]:
        ids = inputs["input_ids"] * inputs["attention_mask"]
        self._fakes.begin(ids, self._threads)
        for token, free in list(self._fakes.holds.items()):
            assert token not in ids or free.wait(30)
        for token, error in self._fakes.errors.items():
            if token in ids:
                raise error
        found = {
            "sums": np.stack([ids.sum(axis=1), ids[:, 0]], axis=1),
            "states": ids[:, :, None] * np.array([1, 2, 3]),
            "odd": np.zeros((len(ids), ids.shape[1])),
        }
        return [found[output].astype(np.float32) for output in outputs]


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    made = Fakes()
    yield made
    made.release()


@pytest.fixture(scope="session")
def cuda_bundle(classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With graphs for CUDA, which the CPU stands in for."""
    from encort.export.exporter import export_bundle

    kinds = ["fp32", "cuda-fp16", "cuda-fp32"]
    return export_bundle(classifier_checkpoint, tmp_path_factory.mktemp("cuda") / "b", variants=kinds).folder


@pytest.fixture(scope="session")
def fake_variant() -> Variant:
    """What the fake sessions take and give."""
    axes = ["batch", "sequence"]
    return Variant(
        name="fake",
        file="fake.onnx",
        weights_file=None,
        device=Device.CPU,
        precision=Precision.FP32,
        layout=Layout.EQUAL_LENGTH,
        instruction_set=None,
        inputs={"input_ids": axes, "token_type_ids": axes},
        outputs={"sums": ["batch", "2"], "states": [*axes, "3"], "odd": ["batch", "width"]},
        fidelity=None,
    )


@pytest.fixture
def held() -> Callable[[encort.Model], Held]:
    """`with held(model) as (began, free)`: runs wait; `began` is set when one does, `free` lets all of them go."""

    @contextmanager
    def hold(model: encort.Model) -> Iterator[tuple[threading.Event, threading.Event]]:
        began, free = threading.Event(), threading.Event()
        run_rows = model._engine.run_rows

        def run(*arguments: Any, **options: Any) -> list[FloatArray]:
            began.set()
            assert free.wait(30)
            return run_rows(*arguments, **options)

        model._engine.run_rows = run
        try:
            yield began, free
        finally:
            free.set()
            del model._engine.run_rows

    return hold


@pytest.fixture(scope="session")
def classifier(classifier_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(classifier_bundle, threads=2) as model:
        yield model


@pytest.fixture(scope="session")
def encoder(encoder_bundle: Path) -> Iterator[encort.Model]:
    with encort.load(encoder_bundle, threads=2) as model:
        yield model


@pytest.fixture
def bundle(classifier_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the classifier's bundle, free to damage."""
    return Path(shutil.copytree(classifier_bundle, tmp_path / "copy.bundle"))


@pytest.fixture
def edit_manifest(bundle: Path) -> EditManifest:
    """`edit_manifest(lambda plain: plain.update(max_length=12))` changes the copy's manifest."""

    def edit(change: Callable[[Plain], Any]) -> None:
        plain = json.loads((bundle / "encort.json").read_text(encoding="utf-8"))
        change(plain)
        (bundle / "encort.json").write_text(json.dumps(plain), encoding="utf-8")

    return edit


@pytest.fixture
def replace_file(bundle: Path, edit_manifest: EditManifest) -> ReplaceFile:
    """`replace_file(name, content)` changes a file of the copy and its hash in the manifest."""

    def replace(name: str, content: bytes) -> None:
        (bundle / name).write_bytes(content)
        entry = {"sha256": sha256(bundle / name), "bytes": len(content)}
        edit_manifest(lambda plain: plain["files"].update({name: entry}))

    return replace


@pytest.fixture
def run_encort(tmp_path: Path) -> RunEncort:
    """`run_encort("embed", bundle, "a text")` runs the command in a process of its own, in `tmp_path`."""

    def run(*arguments: Any, stdin: bytes = b"", **environment: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "encort", *map(os.fspath, arguments)]
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            timeout=60,
            cwd=tmp_path,
            env=os.environ | environment,
            check=False,
        )
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())

    return run


@pytest.fixture(scope="session")
def multi_head(encoder_checkpoint, tmp_path_factory):
    """One encoder with a head for every task."""
    import torch
    import transformers

    from encort.export.exporter import export_bundle

    parent = tmp_path_factory.mktemp("heads")
    for name, (loader, settings) in HEADS.items():
        torch.manual_seed(7)
        getattr(transformers, loader).from_pretrained(encoder_checkpoint, **settings).save_pretrained(parent / name)
        transformers.AutoTokenizer.from_pretrained(encoder_checkpoint).save_pretrained(parent / name)
    return export_bundle([parent / name for name in HEADS], parent / "b", variants=["fp32"]).folder
