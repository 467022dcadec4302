"""From logits to probabilities and classes."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from encort.runtime.bundle.manifest import Activation
from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.results import Classification
from encort.runtime.text.token_batch import TokenBatch


def classifications(
    logits: FloatArray,
    labels: Sequence[str],
    batch: TokenBatch,
    *,
    probabilities: Callable[[FloatArray], FloatArray],
    threshold: float = 0.5,
) -> list[Classification]:
    """Return one `Classification` per text.

    Args:
        logits: `(texts, labels)` float32.
        labels: Names of the columns.
        batch: The texts, one row each.
        probabilities: Turns logits into probabilities: `softmax` or `sigmoid`.
        threshold: See `Classification`.
    """
    scores = probabilities(logits)
    best = scores.argmax(axis=1)
    return [
        Classification(
            label=labels[index],
            score=row[index],
            scores=dict(zip(labels, row, strict=True)),
            tokens=tokens,
            truncated=truncated,
            threshold=threshold,
        )
        for index, row, tokens, truncated in zip(
            best.tolist(), scores.tolist(), batch.lengths.tolist(), batch.truncated.tolist(), strict=True
        )
    ]


def softmax(logits: FloatArray) -> FloatArray:
    """Return probabilities over the last axis. Logits are shifted by the largest one, so that nothing overflows."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: FloatArray) -> FloatArray:
    """Return the probability of each label by itself. Half a hyperbolic tangent does not overflow."""
    probabilities: FloatArray = 0.5 * (1 + np.tanh(0.5 * logits))
    return probabilities


def _identity(logits: FloatArray) -> FloatArray:
    return logits


ACTIVATIONS: Mapping[Activation, Callable[[FloatArray], FloatArray]] = {
    Activation.IDENTITY: _identity,
    Activation.SIGMOID: sigmoid,
    Activation.TANH: np.tanh,
    Activation.SOFTMAX: softmax,
}
"""Functions of the logits of a text."""
