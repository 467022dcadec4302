"""From start and end logits to answers from the context."""

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Answer, Matches
from encort.runtime.tasks.spans import end_behind_marks, matches_per_text
from encort.runtime.text.token_batch import Text, TokenBatch

MAX_ANSWER_TOKENS = 30
"""Most tokens of an answer."""


def answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, *, n_best: int
) -> list[Matches[Answer]]:
    """Return the best answers to every question, the most probable first.

    A short context may give fewer than `n_best` answers.

    Args:
        start_logits: `(tokens,)` float32.
        end_logits: `(tokens,)` float32.
        batch: Pairs of question and context, with the offsets of their tokens.
        n_best: Most answers per question.
    """
    best = (_answers(start_logits, end_logits, batch, index, text, n_best) for index, text in enumerate(batch.texts))
    return matches_per_text(best, batch)


def _answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, index: int, text: Text, n_best: int
) -> list[Answer]:
    assert batch.offsets is not None
    tokens = np.arange(*batch.cu_seqlens[index : index + 2])
    starts, ends, context = batch.offsets.starts, batch.offsets.ends, text[1]
    # Tokens of the question, special tokens, and tokens of white space alone cannot be in an answer.
    is_candidate = [
        batch.offsets.sequences[token] == 1
        and not context[starts[token] : ends[token]].isspace()
        and starts[token] < ends[token]
        for token in tokens
    ]
    tokens = tokens[is_candidate]
    if not len(tokens):
        return []
    # Rows: the first token of an answer. Columns: how many more tokens it has.
    lasts = np.arange(len(tokens))[:, None] + np.arange(MAX_ANSWER_TOKENS)
    scores = softmax(start_logits[tokens])[:, None] * softmax(end_logits[tokens])[np.minimum(lasts, len(tokens) - 1)]
    scores[lasts >= len(tokens)] = -1
    best: dict[tuple[int, int], Answer] = {}
    for pair in np.argsort(-scores, axis=None, kind="stable"):
        first, more = divmod(int(pair), MAX_ANSWER_TOKENS)
        if len(best) == n_best or scores[first, more] < 0:
            break
        start, end = int(starts[tokens[first]]), end_behind_marks(context, int(ends[tokens[first + more]]))
        # Several tokens of one character, such as an emoji, have the same offsets.
        best.setdefault(
            (start, end), Answer(text=context[start:end], score=float(scores[first, more]), start=start, end=end)
        )
    return list(best.values())
