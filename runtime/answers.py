"""Start and end logits to answers from the context."""

import numpy as np

from encort.runtime.results import Answer, softmax
from encort.runtime.session import FloatArray
from encort.runtime.tokens import Text, TokenBatch

LONGEST = 30
"""Tokens of an answer, at most."""


def answers(start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, *, n_best: int) -> list[list[Answer]]:
    """The best answers of every question, the most probable first; fewer than `n_best` in a short context.

    Args:
        start_logits: `(tokens,)` float32.
        end_logits: `(tokens,)` float32.
        batch: Pairs of question and context, with the places of their tokens.
    """
    return [_answers(start_logits, end_logits, batch, index, text, n_best) for index, text in enumerate(batch.texts)]


def _answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, index: int, text: Text, n_best: int
) -> list[Answer]:
    assert batch.places is not None
    begin, end = batch.cu_seqlens[index : index + 2]
    # A part of the question, or a special token, is no answer.
    tokens = np.arange(begin, end)[batch.places.sequences[begin:end] == 1]
    if not len(tokens):
        return []
    scores = np.outer(softmax(start_logits[tokens]), softmax(end_logits[tokens]))
    # From a start to an end that does not lie before it, nor too far after it.
    scores = np.tril(np.triu(scores), LONGEST - 1)
    best = np.argsort(-scores, axis=None, kind="stable")[:n_best]
    pairs = [(int(first), int(last)) for first, last in zip(*np.unravel_index(best, scores.shape), strict=True)]
    return [
        _answer(text[1], int(batch.places.starts[tokens[first]]), int(batch.places.ends[tokens[last]]), score)
        for (first, last), score in zip(pairs, scores.ravel()[best].tolist(), strict=True)
        if score > 0
    ]


def _answer(context: str, start: int, end: int, score: float) -> Answer:
    return Answer(text=context[start:end], score=score, start=start, end=end)
