import numpy as np
import pytest

from encort.export.checkpoint import Checkpoint
from encort.export.oracle import Case, Oracle, cosines
from encort.runtime.manifest import Output, Pooling


@pytest.fixture(scope="session")
def case():
    random = np.random.default_rng(0)
    mask = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0]])
    return Case("three texts", random.integers(0, 100, mask.shape), random.integers(0, 2, mask.shape), mask)


@pytest.fixture(scope="session")
def classifier(make_checkpoint):
    # Dropout so high that a model in train() could not go unnoticed.
    folder = make_checkpoint(labels=["a", "b"], hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    return Checkpoint.open(str(folder))


def test_outputs_are_eager_float32(classifier, case, eager):
    found = Oracle(classifier, Pooling.MEAN, True)(case)
    expected = eager(classifier.folder, case.ids, case.type_ids, case.mask)
    assert set(found) == set(Output)
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[Output(name)], array)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", Pooling)
def test_sentence_embeddings_count_unmasked_tokens_alone(pooling, normalize, classifier, case):
    outputs = Oracle(classifier, pooling, normalize)(case)
    hidden = outputs[Output.LAST_HIDDEN_STATE]
    expected = {
        Pooling.MEAN: np.stack([hidden[0].mean(0), hidden[1, [0, 2]].mean(0), hidden[2, 0]]),
        Pooling.CLS: hidden[:, 0],
        Pooling.POOLER: outputs[Output.POOLER_OUTPUT],
    }[pooling]
    if normalize:
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(outputs[Output.SENTENCE_EMBEDDING], expected, rtol=0, atol=1e-6)


def test_an_encoder_has_no_logits(encoder_checkpoint, case):
    outputs = Oracle(Checkpoint.open(str(encoder_checkpoint)), Pooling.MEAN, True)(case)
    assert set(outputs) == set(Output) - {Output.LOGITS}


def test_a_case_is_masked_when_a_token_does_not_count(case):
    assert case.is_masked
    assert not Case("full", case.ids, case.type_ids, np.ones_like(case.mask)).is_masked


def test_cosines_are_those_of_each_row_with_its_partner():
    first = np.array([[1, 0], [1, 1], [2, 0]], np.float32)
    second = np.array([[3, 0], [1, 0], [-1, 0]], np.float32)
    np.testing.assert_allclose(cosines(first, second), [1, np.sqrt(0.5), -1])
