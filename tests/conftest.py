"""Checkpoints and bundles of tiny seeded encoders, shared by all tests. Nothing is downloaded."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ENVIRONMENT, LABELS, save_checkpoint, save_heads

os.environ |= ENVIRONMENT

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`make_checkpoint(labels=[...], seed=0, **config)` saves a tiny BERT with odd sizes and returns its folder."""

    def make(**options: Any) -> Path:
        return save_checkpoint(tmp_path_factory.mktemp("checkpoint"), **options)

    return make


@pytest.fixture(scope="session")
def encoder_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    """Return a checkpoint of a bare encoder. It is shared: copy it before you change it."""
    return make_checkpoint(seed=1)


@pytest.fixture(scope="session")
def classifier_checkpoint(make_checkpoint: MakeCheckpoint) -> Path:
    """Return a checkpoint of a text classifier. It is shared: copy it before you change it."""
    return make_checkpoint(labels=LABELS, seed=2)


@pytest.fixture(scope="session")
def encoder_bundle(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of a bare encoder in full precision. It is shared: copy it before you change it."""
    from encort.export.exporter import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "encoder.bundle"
    return export_bundle(encoder_checkpoint, folder, variants=["fp32"]).folder


@pytest.fixture(scope="session")
def classifier_bundle(classifier_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of a text classifier in full precision. It is shared: copy it before you change it."""
    from encort.export.exporter import export_bundle

    folder = tmp_path_factory.mktemp("bundles") / "classifier.bundle"
    return export_bundle(classifier_checkpoint, folder, variants=["fp32"]).folder


@pytest.fixture(scope="session")
def multi_head(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of one encoder with a head for every task."""
    from encort.export.exporter import export_bundle

    parent = tmp_path_factory.mktemp("heads")
    return export_bundle(save_heads(encoder_checkpoint, parent), parent / "b", variants=["fp32"]).folder


@pytest.fixture(scope="session")
def masked_bundle(encoder_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle of a masked language model in full precision. It is shared: copy it before you change it."""
    import torch
    import transformers

    from encort.export.exporter import export_bundle
    from tests.builders import save_tokenizer

    torch.manual_seed(4)
    checkpoint = tmp_path_factory.mktemp("checkpoint")
    transformers.BertForMaskedLM.from_pretrained(encoder_checkpoint).save_pretrained(checkpoint)
    save_tokenizer(checkpoint)
    folder = tmp_path_factory.mktemp("bundles") / "words.bundle"
    return export_bundle(checkpoint, folder, task="fill-mask", variants=["fp32"]).folder
