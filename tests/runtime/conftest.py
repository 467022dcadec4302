"""Bundles to damage, and the command line as a shell runs it."""

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
from encort.runtime.bundle import sha256

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
def several_heads(encoder_checkpoint, tmp_path_factory):
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
