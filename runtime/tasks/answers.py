"""Start and end logits to answers from the context."""

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.results import Answer, Matches, counted, end_of_mark, softmax
from encort.runtime.text.token_batch import Text, TokenBatch

LONGEST = 30
"""Tokens of an answer, at most."""


def answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, *, n_best: int
) -> list[Matches[Answer]]:
    """The best answers of every question, the most probable first; fewer than `n_best` in a short context.

    Args:
        start_logits: `(tokens,)` float32.
        end_logits: `(tokens,)` float32.
        batch: Pairs of question and context, with the places of their tokens.
    """
    found = (_answers(start_logits, end_logits, batch, index, text, n_best) for index, text in enumerate(batch.texts))
    return counted(found, batch)


def _answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, index: int, text: Text, n_best: int
) -> list[Answer]:
    assert batch.offsets is not None
    tokens = np.arange(*batch.cu_seqlens[index : index + 2])
    starts, ends, context = batch.offsets.starts, batch.offsets.ends, text[1]
    # A part of the question, a special token, or white space that is a token of its own, is no answer.
    is_candidate = [
        batch.offsets.sequences[token] == 1
        and not context[starts[token] : ends[token]].isspace()
        and starts[token] < ends[token]
        for token in tokens
    ]
    tokens = tokens[is_candidate]
    if not len(tokens):
        return []
    # Row: the first token of an answer; column: how many more it has.
    lasts = np.arange(len(tokens))[:, None] + np.arange(LONGEST)
    scores = softmax(start_logits[tokens])[:, None] * softmax(end_logits[tokens])[np.minimum(lasts, len(tokens) - 1)]
    scores[lasts >= len(tokens)] = -1
    found: dict[tuple[int, int], Answer] = {}
    for pair in np.argsort(-scores, axis=None, kind="stable"):
        first, more = divmod(int(pair), LONGEST)
        if len(found) == n_best or scores[first, more] < 0:
            break
        start, end = int(starts[tokens[first]]), end_of_mark(context, int(ends[tokens[first + more]]))
        # Several tokens of one character, as of an emoji, share its place.
        found.setdefault(
            (start, end), Answer(text=context[start:end], score=float(scores[first, more]), start=start, end=end)
        )
    return list(found.values())
