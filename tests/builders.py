"""Tiny seeded encoders and tokenizers, made in code. Nothing is downloaded."""

import string
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    # The threads of torch and of ONNX Runtime spin while they wait. On two busy cores an export of a tiny encoder takes
    # 17 to 60 seconds with two threads of torch, and 2 seconds with one.
    "OMP_NUM_THREADS": "1",
}
"""Environment variables of all tests."""
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
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
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


def vocabulary() -> list[str]:
    """Return special tokens, single characters, their continuations, and a few words, in this order."""
    characters = [*string.ascii_lowercase, *string.digits, *string.punctuation, *"가나다라안녕하세요이"]
    continued = [f"##{character}" for character in characters if character not in string.punctuation]
    return list(dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *continued, *WORDS]))


def bert_tokenizer(words: Sequence[str], **settings: Any) -> Any:
    """Return the tokenizer of transformers for BERT with this vocabulary; its constructor differs between versions."""
    from transformers import BertTokenizerFast

    with TemporaryDirectory() as folder:
        (Path(folder) / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        return BertTokenizerFast.from_pretrained(folder, **settings)


def save_tokenizer(folder: Path) -> None:
    """Save a WordPiece tokenizer with the vocabulary of the tiny encoders."""
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    bert_tokenizer(vocabulary(), model_max_length=64).save_pretrained(folder)


def save_checkpoint(folder: Path, *, labels: list[str] | None = None, seed: int = 0, **settings: Any) -> Path:
    """Save a tiny BERT with odd sizes: an encoder, or with labels a text classifier.

    Args:
        folder: Folder that exists.
        labels: Labels of the classifier.
        seed: Seed of the weights.
        settings: Values of the BERT configuration.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

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


def save_heads(encoder: Path, folder: Path) -> list[Path]:
    """Save a checkpoint with this encoder for each head of `HEADS`, and return their folders."""
    import torch
    import transformers

    for name, (loader, settings) in HEADS.items():
        torch.manual_seed(7)
        getattr(transformers, loader).from_pretrained(encoder, **settings).save_pretrained(folder / name)
        transformers.AutoTokenizer.from_pretrained(encoder).save_pretrained(folder / name)
    return [folder / name for name in HEADS]
