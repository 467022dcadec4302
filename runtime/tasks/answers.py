"""From start and end logits to answers from the context, or to the finding that it has none."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.arrays import BoolArray, FloatArray, Int64Array
from encort.runtime.tasks.results import Answer, Answers
from encort.runtime.text.graphemes import Graphemes
from encort.runtime.text.token_batch import TokenBatch

MAX_ANSWER_TOKENS = 30
"""Most tokens of an answer."""

Bounds = tuple[int, int]
"""Start and end of an answer in its context, in characters."""


def answers(
    start_logits: FloatArray, end_logits: FloatArray, batch: TokenBatch, *, n_best: int, null_threshold: float
) -> list[Answers]:
    """Return the best answers to every question, the most probable first.

    As in the pipeline of transformers, each window of a context is read by itself: its probabilities are those of its
    context's tokens and of its first token (`[CLS]`), which stands for "no answer here". A context has no answer only
    if no window has one, so the null score of a text is the smallest one of its windows.

    A short context may give fewer than `n_best` answers.

    Args:
        start_logits: `(tokens,)` float32.
        end_logits: `(tokens,)` float32.
        batch: Pairs of question and context, or their windows, with the offsets of their tokens.
        n_best: Most answers per question.
        null_threshold: A question has no answer if the logarithm of its null score is larger than that of the best
            answer's score by more than this. In a single window, this is the difference of logits that scripts for
            SQuAD 2 call `null_score_diff_threshold`.
    """
    rows = range(len(batch))
    windows: list[list[_Window]] = [[] for _ in batch.texts]
    graphemes = [Graphemes(pair[1], end=end) for pair, end in zip(batch.texts, _read_ends(batch), strict=True)]
    for row, text in zip(rows, rows if batch.windows is None else batch.windows.texts.tolist(), strict=True):
        windows[text].append(_Window(start_logits, end_logits, batch, row, graphemes[text], n_best=n_best))
    counts = zip(batch.tokens_per_text.tolist(), batch.truncated_texts.tolist(), strict=True)
    return [
        _choose(pair[1], windows_of_text, n_best, null_threshold, tokens=tokens, truncated=truncated)
        for pair, windows_of_text, (tokens, truncated) in zip(batch.texts, windows, counts, strict=True)
    ]


def _choose(
    context: str, windows: Sequence["_Window"], n_best: int, null_threshold: float, *, tokens: int, truncated: bool
) -> Answers:
    """Return the answers of a context from those of its windows."""
    null_score = min(window.null_score for window in windows)
    best = _merge(window.scores for window in windows)[:n_best]
    margin = null_score - best[0][1] if best else math.inf
    found = [] if margin > null_threshold else best
    return Answers(
        (Answer(text=context[start:end], score=math.exp(score), start=start, end=end) for (start, end), score in found),
        null_score=math.exp(null_score),
        null_margin=margin,
        tokens=tokens,
        truncated=truncated,
    )


def _read_ends(batch: TokenBatch) -> list[int]:
    """Return the offset behind the last token of each text: of a context of megabytes, a model may read a page."""
    assert batch.offsets is not None
    ends = [0] * len(batch.texts)
    texts = range(len(batch)) if batch.windows is None else batch.windows.texts.tolist()
    for text, (start, stop) in zip(texts, pairwise(batch.cu_seqlens.tolist()), strict=True):
        ends[text] = max(ends[text], int(batch.offsets.ends[start:stop].max(initial=0)))
    return ends


class _Window:
    """The answers that one window gives. All scores are logarithms of probabilities.

    Attributes:
        null_score: Score of "no answer here".
        scores: Scores of the best answers by their bounds.
    """

    def __init__(
        self,
        start_logits: FloatArray,
        end_logits: FloatArray,
        batch: TokenBatch,
        row: int,
        context: Graphemes,
        *,
        n_best: int,
    ) -> None:
        """Read one row of a batch; see `answers`."""
        assert batch.offsets is not None
        first, stop = batch.cu_seqlens[row : row + 2].tolist()
        tokens = first + np.flatnonzero(batch.offsets.sequences[first:stop] == 1)
        edges = context.visible_parts(batch.offsets.starts[tokens], batch.offsets.ends[tokens])
        can_be_in_answer = edges[:, 0] < edges[:, 1]
        tokens, self._edges = tokens[can_be_in_answer], edges[can_be_in_answer]
        read = np.concatenate([[first], tokens])
        starts, ends = _log_softmax(start_logits[read]), _log_softmax(end_logits[read])
        self.null_score = float(starts[0] + ends[0])
        own = np.ones(len(tokens), np.bool_) if batch.windows is None else batch.windows.own[tokens]
        self.scores = self._best_scores(starts[1:], ends[1:], own, n_best)

    def _best_scores(
        self, starts: NDArray[np.float64], ends: NDArray[np.float64], own: BoolArray, n_best: int
    ) -> dict[Bounds, float]:
        firsts, lasts = _token_spans(own)
        scores = starts[firsts] + ends[lasts]
        best: dict[Bounds, float] = {}
        for index in np.argsort(-scores, kind="stable"):
            if len(best) == n_best:
                break
            # Several tokens of one character, such as an emoji, have the same offsets.
            bounds = int(self._edges[firsts[index], 0]), int(self._edges[lasts[index], 1])
            best.setdefault(bounds, float(scores[index]))
        return best


def _token_spans(own: BoolArray) -> tuple[Int64Array, Int64Array]:
    """Return the first and the last token of every answer that a window may give.

    These have at least one token that counts in the window, so that an answer between two windows can come from either.

    Args:
        own: `(candidates,)` bool, which tokens count in the window.
    """
    firsts, more = np.indices((len(own), MAX_ANSWER_TOKENS))
    lasts = firsts + more
    is_inside = lasts < len(own)
    firsts, lasts = firsts[is_inside], lasts[is_inside]
    own_before = np.cumsum([0, *own])
    has_own = own_before[lasts + 1] > own_before[firsts]
    return firsts[has_own], lasts[has_own]


def _merge(windows: Iterable[Mapping[Bounds, float]]) -> list[tuple[Bounds, float]]:
    """Return the answers of all windows, each with its best score, the best answer first."""
    merged: dict[Bounds, float] = {}
    for scores in windows:
        for bounds, score in scores.items():
            merged[bounds] = max(score, merged.get(bounds, -math.inf))
    return sorted(merged.items(), key=lambda item: -item[1])


def _log_softmax(logits: FloatArray) -> NDArray[np.float64]:
    """Return the logarithms of probabilities, which keep their order where probabilities would become 0."""
    shifted = logits.astype(np.float64) - logits.max()
    log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum())
    return log_probabilities
