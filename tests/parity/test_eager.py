"""The runtime gives the results of eager PyTorch for any batch, length and mask."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

import encort

TEXTS = [
    "hello",
    "",
    "my card is lost",
    "change the pin, my pin is lost!",
    "안녕하세요 hello",
    "😀 unknown ✓ characters",
    "the card " * 100,
    "playing played play",
]


@pytest.fixture
def eager_logits(classifier_checkpoint: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(classifier_checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(
        classifier_checkpoint, attn_implementation="eager"
    ).eval()
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return model.eval()(**tokens).logits


def test_classify_gives_eager_probabilities(classifier_bundle: Path, eager_logits: torch.Tensor) -> None:
    with encort.load(classifier_bundle) as model:
        results = model.classify(TEXTS)
    scores = np.array([list(result.scores.values()) for result in results])
    np.testing.assert_allclose(scores, eager_logits.softmax(-1).numpy(), atol=1e-5)
    assert [result.label for result in results] == [
        model.manifest.heads[0].labels[index] for index in eager_logits.argmax(-1).tolist()
    ]


def test_embed_gives_the_eager_normalized_mean(encoder_checkpoint: Path, encoder_bundle: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(encoder_checkpoint)
    model = AutoModel.from_pretrained(encoder_checkpoint, attn_implementation="eager").eval()
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"].unsqueeze(2)
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    with encort.load(encoder_bundle) as runtime:
        np.testing.assert_allclose(runtime.embed(TEXTS), expected, atol=1e-5)


def test_a_text_has_the_same_vector_alone_and_with_others(encoder_bundle: Path) -> None:
    with encort.load(encoder_bundle) as model:
        together = model.embed(TEXTS)
        alone = np.concatenate([model.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-6)
