"""Tiny seeded encoders and tokenizers, made in code. Nothing is downloaded."""

import os
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
# The threads of torch and of ONNX Runtime spin while they wait. On two busy cores an export of a tiny encoder takes 17
# to 60 seconds with two threads of torch, and 2 seconds with one.
os.environ["OMP_NUM_THREADS"] = "1"

WORDS = [
    "card",
    "my",
    "the",
    "is",
    "lost",
    "hello",
    "pin",
    "change",
    "play",
    "##ing",
    "##ed",
    "안녕",
    "##하세요",
    "하이",
]
LABELS = ["card_lost", "change_pin", "hello"]

MakeCheckpoint = Callable[..., Path]


def vocabulary() -> list[str]:
    """Return special tokens, single characters, their continuations, and a few words, in this order."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation, *"가나다라안녕하세요이"]
    continued = [f"##{character}" for character in characters if character not in string.punctuation]
    return list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *continued, *WORDS]))


def save_tokenizer(folder: Path) -> None:
    """Save a WordPiece tokenizer with the vocabulary of the tiny encoders."""
    from transformers import BertTokenizerFast

    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt"), model_max_length=64).save_pretrained(folder)


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`make_checkpoint(labels=[...], seed=0, **config)` saves a tiny BERT with odd sizes and returns its folder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    def make(*, labels: list[str] | None = None, seed: int = 0, **settings: Any) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint")
        sizes = {
            "vocab_size": len(vocabulary()) + 3,
            "hidden_size": 40,
            "num_hidden_layers": 3,
            "num_attention_heads": 5,
            "intermediate_size": 72,
            "max_position_embeddings": 64,
            # Large weights: with small ones the error of a wrong graph would stay below the tolerance.
            "initializer_range": 0.3,
        }
        config = BertConfig(**{**sizes, **settings})
        torch.manual_seed(seed)
        if labels is None:
            model = BertModel(config)
        else:
            config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
            model = BertForSequenceClassification(config)
        for parameter in model.parameters():
            # Biases and norms start at exactly 0 and 1, which would hide mistakes.
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, mean=float(parameter.detach().mean()), std=0.2)
        model.save_pretrained(folder)
        save_tokenizer(folder)
        return folder

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
