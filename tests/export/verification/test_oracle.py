from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle
from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, POOLER_OUTPUT, SENTENCE_EMBEDDING, Embedding, Pooling

ENCODER_OUTPUTS = {LAST_HIDDEN_STATE, POOLER_OUTPUT, SENTENCE_EMBEDDING}


@pytest.fixture(scope="session")
def case() -> Case:
    random = np.random.default_rng(0)
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0]])
    ids, types = random.integers(0, 100, mask.shape), random.integers(0, 2, mask.shape)
    return Case("three texts", {"input_ids": ids, "token_type_ids": types, "attention_mask": mask})


@pytest.fixture(scope="session")
def classifier(make_checkpoint: Callable[..., Path]) -> ExportSource:
    # With dropout this high, a model in train() would give clearly other outputs.
    folder = make_checkpoint(labels=["a", "b"], hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    return ExportSource.open([str(folder)])


def test_outputs_are_eager_float32(classifier: ExportSource, case: Case, eager: Callable[..., Any]) -> None:
    outputs = Oracle.of(classifier)(case)
    expected = eager(classifier.checkpoints[0].folder, case.inputs)
    assert set(outputs) == {*ENCODER_OUTPUTS, "logits"}
    assert {array.dtype for array in outputs.values()} == {np.dtype(np.float32)}
    for name, array in expected.items():
        np.testing.assert_array_equal(outputs[name], array)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", Pooling)
def test_sentence_embeddings_count_only_unmasked_tokens(
    pooling: Pooling, normalize: bool, classifier: ExportSource, case: Case
) -> None:
    outputs = replace(Oracle.of(classifier), embedding=Embedding(pooling=[pooling], normalize=normalize))(case)
    hidden = outputs[LAST_HIDDEN_STATE]
    expected = {
        Pooling.MEAN: np.stack([hidden[0].mean(0), hidden[1, [0, 2]].mean(0), hidden[2, 0]]),
        Pooling.CLS: hidden[:, 0],
        Pooling.POOLER: outputs[POOLER_OUTPUT],
        Pooling.MAX: np.stack([hidden[0].max(0), hidden[1, [0, 2]].max(0), hidden[2, 0]]),
        Pooling.MEAN_SQRT_LEN: np.stack(
            [hidden[0].sum(0) / np.sqrt(5), hidden[1, [0, 2]].sum(0) / np.sqrt(2), hidden[2, 0]]
        ),
        Pooling.WEIGHTED_MEAN: np.stack(
            [
                np.average(hidden[0], axis=0, weights=[1, 2, 3, 4, 5]),
                np.average(hidden[1, [0, 2]], axis=0, weights=[1, 3]),
                hidden[2, 0],
            ]
        ),
        Pooling.LAST_TOKEN: np.stack([hidden[0, 4], hidden[1, 2], hidden[2, 0]]),
    }[pooling]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs[SENTENCE_EMBEDDING], expected, rtol=0, atol=1e-6)


def test_long_texts_give_the_results_of_eager_attention(
    classifier: ExportSource, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle, model = Oracle.of(classifier), classifier.checkpoints[0].model
    expected, kernels = oracle(case), []
    original = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: kernels.append(1) or original(*a, **k)
    )
    monkeypatch.setattr("encort.export.verification.oracle.LONG", 4)
    outputs = oracle(case)
    assert len(kernels) == model.config.num_hidden_layers
    assert model.config._attn_implementation == "eager"
    for name, array in expected.items():
        tokens = case.mask == 1 if array.shape[:2] == case.mask.shape else ...
        np.testing.assert_allclose(outputs[name][tokens], array[tokens], rtol=0, atol=1e-5)


def test_an_encoder_has_no_logits(encoder_checkpoint: Path, case: Case) -> None:
    assert set(Oracle.of(ExportSource.open([str(encoder_checkpoint)]))(case)) == ENCODER_OUTPUTS


def test_a_case_is_masked_when_a_token_does_not_count(case: Case) -> None:
    assert case.is_masked
    assert not Case("full", {**case.inputs, "attention_mask": np.ones_like(case.mask)}).is_masked
