"""A tokenizer that cuts the beginning of long texts: export, bundle and training cut where transformers does."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings

LONG = "my card is lost, hello " * 40 + "change the pin"
TEXTS = ["hello", LONG, (LONG, "hello"), ("hello", LONG), (LONG, LONG + " now"), ("", LONG), "the pin " * 2000]


@pytest.fixture
def left(classifier_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], edit_json: Callable[..., None]) -> Path:
    folder = checkpoint_copy(classifier_checkpoint)
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    return folder


def expected_ids(folder: Path, **limits: Any) -> list[list[int]]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [(text, None) if isinstance(text, str) else text for text in TEXTS]
    return [tokenizer(*pair, truncation=True, **limits)["input_ids"] for pair in pairs]


def test_a_bundle_cuts_the_beginning(left: Path, output: Path) -> None:
    export_bundle(left, output, variants=["fp32"], max_length=24)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(left, attn_implementation="eager").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(left)
    with encort.load(output) as loaded, torch.inference_mode():
        for text, ids, result in zip(TEXTS, expected_ids(left, max_length=24), loaded.classify(TEXTS), strict=True):
            pair = (text, None) if isinstance(text, str) else text
            inputs = tokenizer(*pair, truncation=True, max_length=24, return_tensors="pt")
            assert inputs["input_ids"][0].tolist() == ids
            probabilities = model(**inputs).logits.softmax(-1)[0].numpy()
            np.testing.assert_allclose(list(result.scores.values()), probabilities, atol=1e-5)
            assert result.tokens == len(ids)
    saved = transformers.AutoTokenizer.from_pretrained(output)
    assert saved.truncation_side == "left"
    assert saved(LONG, truncation=True)["input_ids"] == expected_ids(left, max_length=24)[1]


def test_training_cuts_the_beginning(left: Path) -> None:
    pretrained = Pretrained.open(str(left), TrainingSettings(max_length=24))
    batch = pretrained.tokenizer(TEXTS)
    rows = [batch.ids[start:end].tolist() for start, end in pairwise(batch.cu_seqlens)]
    assert rows == expected_ids(left, max_length=24)


def test_heads_whose_tokenizers_cut_at_different_sides_are_refused(
    left: Path, classifier_checkpoint: Path, refused: Callable[..., None]
) -> None:
    refused([classifier_checkpoint, left], "has another tokenizer than")
