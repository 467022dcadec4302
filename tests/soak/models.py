"""Tiny seeded models for the scenarios, and the results that eager PyTorch gives for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.builders import LABELS, WORDS, save_checkpoint, save_heads

_EXPECTED_FILE = "expected.json"


def random_text(random: Random, *, most_words: int = 30) -> str:
    """Return a text of random words, with a number that makes it differ from nearly all other texts."""
    words = random.choices([*WORDS, "?", "x9", "😀", "\u0301", "  "], k=random.randrange(most_words))
    return " ".join([str(random.randrange(10**9)), *words])


def _texts() -> list[str]:
    random = Random(0)
    return ["", "hello", "안녕하세요 😀", "card " * 300, *(random_text(random) for _ in range(28))]


TEXTS = _texts()
"""Texts whose results are known: empty, short, and longer than the limit of the models."""


@dataclass(frozen=True)
class Models:
    """Checkpoints and bundles in one folder; see `make_models`.

    Attributes:
        folder: The folder.
    """

    folder: Path

    @property
    def all_heads(self) -> Path:
        """Bundle with a head for every task. Its encoder is the one of `checkpoint("encoder")`."""
        return self.folder / "all_heads.bundle"

    def checkpoint(self, name: str) -> Path:
        """Return a checkpoint: `encoder`, or one of the text classifiers `first` and `second`."""
        return self.folder / name

    def bundle(self, name: str) -> Path:
        """Return the bundle of the text classifier `first` or `second`. They differ only in their weights."""
        return self.folder / f"{name}.bundle"

    def expected(self) -> Mapping[str, Any]:
        """Return what eager PyTorch gives for `TEXTS`: `embed`, and `classify` with the head `topics`."""
        plain: dict[str, Any] = json.loads((self.folder / _EXPECTED_FILE).read_text(encoding="utf-8"))
        return plain


def make_models(folder: Path) -> Models:
    """Save the checkpoints, export the bundles, and write down the results of eager PyTorch."""
    from encort.export.exporter import export_bundle

    models = Models(folder)
    for name, seed, labels in (("encoder", 1, None), ("first", 2, LABELS), ("second", 3, LABELS)):
        models.checkpoint(name).mkdir()
        save_checkpoint(models.checkpoint(name), seed=seed, labels=labels)
    heads = save_heads(models.checkpoint("encoder"), folder / "heads")
    export_bundle(heads, models.all_heads, variants=["fp32"])
    for name in ("first", "second"):
        export_bundle(models.checkpoint(name), models.bundle(name), variants=["fp32"])
    expected = {"embed": _embeddings(models.checkpoint("encoder")), "classify": _probabilities(folder / "heads/topics")}
    (folder / _EXPECTED_FILE).write_text(json.dumps(expected), encoding="utf-8")
    return models


def _embeddings(checkpoint: Path) -> list[list[float]]:
    """Return the normalized mean of the hidden states of each text."""
    import transformers

    encoder = transformers.AutoModel.from_pretrained(checkpoint).eval()
    means = [_outputs(encoder, checkpoint, text).last_hidden_state[0].mean(dim=0) for text in TEXTS]
    return [(mean / mean.norm()).tolist() for mean in means]


def _probabilities(checkpoint: Path) -> list[list[float]]:
    """Return the probabilities of the labels for each text."""
    import transformers

    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    return [_outputs(classifier, checkpoint, text).logits[0].softmax(dim=-1).tolist() for text in TEXTS]


def _outputs(model: Any, checkpoint: Path, text: str) -> Any:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint)
    with torch.no_grad():
        return model(**tokenizer(text, truncation=True, return_tensors="pt"))
