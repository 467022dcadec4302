"""What the tasks give, and how it comes out of the graph's outputs."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.token_batch import TokenBatch


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The class of one text.

    Attributes:
        label: The most probable label.
        score: Its probability.
        scores: Probability of every label, in the order of training. They sum to 1, except in multi-label
            classification, where each label holds or not by itself.
        tokens: Tokens of the text that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    tokens: int
    truncated: bool

    def above(self, threshold: float = 0.5) -> list[str]:
        """Labels that are at least this probable: the answer of multi-label classification."""
        return [label for label, score in self.scores.items() if score >= threshold]


Item = TypeVar("Item")


class Matches(list[Item]):
    """What was found in one text: a list, with how much of the text was read.

    Attributes:
        tokens: Tokens of the text that the model read, special tokens included.
        truncated: Whether tokens were cut off at the limit.
    """

    def __init__(self, items: Iterable[Item] = (), *, tokens: int = 0, truncated: bool = False) -> None:
        super().__init__(items)
        self.tokens, self.truncated = tokens, truncated


@dataclass(frozen=True, kw_only=True)
class Span:
    """A tagged part of a text.

    Attributes:
        label: Its label, without the prefix of a tagging scheme.
        score: Mean probability of its words' tags.
        start: Its first character in the text that was given.
        end: The character after its last.
        text: `text[start:end]`.
    """

    label: str
    score: float
    start: int
    end: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A part of a context that answers a question.

    Attributes:
        text: `context[start:end]`.
        score: Probability of its first token being the start, times that of its last being the end.
        start: Its first character in the context.
        end: The character after its last.
    """

    text: str
    score: float
    start: int
    end: int


def classifications(
    logits: FloatArray, labels: Sequence[str], batch: TokenBatch, *, scale: Callable[[FloatArray], FloatArray]
) -> list[Classification]:
    """Turn logits, `(n, labels)` float32, into one `Classification` a text; `scale` makes probabilities of them."""
    scores = scale(logits)
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


def counted(results: Iterable[Iterable[Item]], batch: TokenBatch) -> list[Matches[Item]]:
    """The same, each with the tokens of its text."""
    counts = zip(batch.lengths.tolist(), batch.truncated.tolist(), strict=True)
    return [
        Matches(items, tokens=tokens, truncated=truncated)
        for items, (tokens, truncated) in zip(results, counts, strict=True)
    ]


def end_of_mark(text: str, end: int) -> int:
    """The end of a part of a text, with the combining marks that follow it and that a tokenizer may drop."""
    while end < len(text) and unicodedata.combining(text[end]):
        end += 1
    return end


def softmax(logits: FloatArray) -> FloatArray:
    """Probabilities over the last axis, shifted by the largest logit so that nothing overflows."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: FloatArray = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: FloatArray) -> FloatArray:
    """Probability of each label by itself; as half a hyperbolic tangent, which does not overflow."""
    probabilities: FloatArray = 0.5 * (1 + np.tanh(0.5 * logits))
    return probabilities
