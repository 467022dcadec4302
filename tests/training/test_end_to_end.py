import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encort
from encort.export.exporter import export_bundle
from encort.runtime.bundle.manifest import Task

TEXTS = ["my card is lost", "hello", "change the pin", "안녕하세요", "the pin of my card is lost now " * 20, ""]


def logits(folder: Path) -> torch.Tensor:
    """Return the logits of transformers for the texts."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return model(**tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")).logits


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], encort.Model]]:
    """Return `serve(folder)`, which exports a checkpoint and loads the bundle."""
    with contextlib.ExitStack() as opened:

        def start(folder: Path) -> encort.Model:
            export_bundle(folder, tmp_path / "trained.bundle", variants=["fp32"])
            return opened.enter_context(encort.load(tmp_path / "trained.bundle"))

        yield start


def test_trained_classes_are_served(trained: Any, serve: Callable[[Path], encort.Model]) -> None:
    served = serve(trained.folder)
    results = served.classify(TEXTS)
    assert served.manifest.heads[0].labels == trained.report.labels
    assert [list(result.scores) for result in results] == [trained.report.labels] * len(TEXTS)
    scores = np.array([list(result.scores.values()) for result in results])
    np.testing.assert_allclose(scores, logits(trained.folder).softmax(-1).numpy(), rtol=0, atol=1e-5)
    assert [result.label for result in results[:3]] == ["card_lost", "greeting", "change_pin"]


def test_trained_labels_are_served(trained_labels: Any, serve: Callable[[Path], encort.Model]) -> None:
    served = serve(trained_labels.folder)
    results = served.classify(TEXTS)
    assert served.manifest.task is Task.MULTI_LABEL_CLASSIFICATION
    scores = np.array([list(result.scores.values()) for result in results])
    np.testing.assert_allclose(scores, logits(trained_labels.folder).sigmoid().numpy(), rtol=0, atol=1e-5)
    assert [list(result.scores) for result in results] == [trained_labels.report.labels] * len(TEXTS)


def test_trained_numbers_are_served(trained_scores: Any, serve: Callable[[Path], encort.Model]) -> None:
    scores = serve(trained_scores.folder).score(TEXTS)
    np.testing.assert_allclose(scores, logits(trained_scores.folder)[:, 0].numpy(), rtol=0, atol=1e-5)
    assert scores[0] < 0  # not a probability
    assert scores[1] > 1
