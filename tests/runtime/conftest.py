"""Fixtures of the runtime's tests: fake sessions, small bundles, and the command line as a shell runs it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import encort
from encort.runtime.bundle.manifest import Device, Layout, Precision, Variant
from encort.runtime.common.folders import sha256
from encort.runtime.engine.costs import Costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.planner import ExecutionSlots
from tests.runtime.fakes import Fakes, MakeEngine

PlainManifest = dict[str, Any]
EditManifest = Callable[[Callable[[PlainManifest], Any]], None]
ReplaceFile = Callable[[str, bytes], None]
RunEncort = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fakes() -> Iterator[Fakes]:
    """Fake sessions. All runs are released at the end."""
    fakes = Fakes()
    yield fakes
    fakes.release()


@pytest.fixture(scope="session")
def fake_variant() -> Variant:
    """The variant that describes the fake sessions."""
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
def make_engine(fakes: Fakes, fake_variant: Variant) -> Iterator[MakeEngine]:
    """`make_engine(threads=4, layout=Layout.RAGGED)` opens an engine over the fake sessions."""
    engines: list[Engine] = []

    def make(
        *,
        threads: int = 1,
        layout: Layout = Layout.EQUAL_LENGTH,
        costs: Costs | None = None,
        slots: ExecutionSlots | None = None,
    ) -> Engine:
        variant = dataclasses.replace(fake_variant, layout=layout)
        engine = Engine(
            variant, fakes.open, threads=threads, costs=costs or Costs(), has_all_cores_session=True, slots=slots
        )
        engines.append(engine)
        return engine

    yield make
    fakes.release()
    for engine in engines:
        engine.close()


@pytest.fixture(scope="session")
def cuda_bundle(classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with graphs for CUDA. Tests run them on the CPU."""
    from encort.export.exporter import export_bundle

    folder = tmp_path_factory.mktemp("cuda") / "bundle"
    return export_bundle(classifier_checkpoint, folder, variants=["fp32", "cuda-fp16", "cuda-fp32"]).folder


@pytest.fixture(scope="session")
def classifier(classifier_bundle: Path) -> Iterator[encort.Model]:
    """A model with a text classifier."""
    with encort.load(classifier_bundle, threads=2) as model:
        yield model


@pytest.fixture(scope="session")
def encoder(encoder_bundle: Path) -> Iterator[encort.Model]:
    """A model without heads."""
    with encort.load(encoder_bundle, threads=2) as model:
        yield model


@pytest.fixture
def bundle(classifier_bundle: Path, tmp_path: Path) -> Path:
    """Return a copy of the classifier's bundle that the test may damage."""
    return Path(shutil.copytree(classifier_bundle, tmp_path / "copy.bundle"))


@pytest.fixture
def edit_manifest(bundle: Path) -> EditManifest:
    """`edit_manifest(lambda plain: plain.update(max_length=12))` changes the copy's manifest."""

    def edit(change: Callable[[PlainManifest], Any]) -> None:
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
