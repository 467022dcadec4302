"""What the tasks give, as frozen values; and how they come out of the graph's outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from encort.runtime.session import FloatArray
from encort.runtime.tokens import TokenBatch


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The class of one text.

    Attributes:
        label: The most probable label.
        score: Its probability.
        scores: Probability of every label, in the order of training; they sum to 1.
        tokens: Tokens of the text that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    tokens: int
    truncated: bool


def classifications(logits: FloatArray, labels: Sequence[str], batch: TokenBatch) -> list[Classification]:
    """Turn logits, `(n, labels)` float32, into one `Classification` a text."""
    scores = softmax(logits)
    best = scores.argmax(axis=1)
    return [
        Classification(
            label=labels[index],
            score=row[index],
            scores=dict(zip(labels, row, strict=True)),
            tokens=tokens,
            truncated=truncated,
        )
        for index, row, tokens, truncated in zip(
            best.tolist(), scores.tolist(), batch.lengths.tolist(), batch.truncated.tolist(), strict=True
        )
    ]


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the last axis, shifted by the largest logit so that nothing overflows."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities
