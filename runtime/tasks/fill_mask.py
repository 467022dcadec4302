"""Words for the mask tokens of texts."""

from collections.abc import Sequence

import numpy as np

from encort.runtime.bundle.manifest import HeadInfo, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import InputError
from encort.runtime.tasks.classification import softmax
from encort.runtime.tasks.results import Masked, Matches, Word
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.masks import masked_tokens, one_row_per_mask, rows_of
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.vocabulary import Vocabulary


def fill_mask_spec(
    head: HeadInfo, variant: Variant, vocabulary: Vocabulary, *, top_k: int
) -> TaskSpec[list[Matches[Masked]]]:
    """Return the spec of `Model.fill`.

    Raises:
        InputTypeError: `top_k` is not a whole number.
        InputError: `top_k` is below 1.
    """
    check_whole("top_k", top_k, least=1)
    assert head.mask is not None  # a rule of the manifest
    mask = head.mask
    (token,) = vocabulary.tokens([mask])

    def check(batch: TokenBatch) -> None:
        masks = np.bincount(_texts(batch, masked_tokens(batch, mask)), minlength=len(batch.truncated_texts))
        if len(masks) and not masks.all():
            raise InputError(
                f"text {int(masks.argmin())} has no {token}, which stands for the missing word, among the tokens that "
                'the model reads; if it is behind the limit, use overflow="window"'
            )

    def fill(batch: TokenBatch, arrays: list[FloatArray]) -> list[Matches[Masked]]:
        tokens = masked_tokens(batch, mask)
        # The portable graph gives the logits of all tokens.
        logits = arrays[0][tokens] if variant.is_tokenwise(head.outputs[0]) else arrays[0]
        return _fill(batch, tokens, [_best(row, vocabulary, top_k) for row in logits])

    return TaskSpec(
        outputs=head.outputs,
        postprocess=fill,
        accepts=check,
        merge=False,
        rows=(lambda batch: one_row_per_mask(batch, mask)) if variant.reads_mask_position else lambda batch: batch,
    )


def _texts(batch: TokenBatch, tokens: np.ndarray) -> np.ndarray:
    """Return the number of the text of each token."""
    rows = rows_of(batch, tokens)
    return rows if batch.windows is None else batch.windows.texts[rows]


def _fill(batch: TokenBatch, tokens: np.ndarray, words: Sequence[list[Word]]) -> list[Matches[Masked]]:
    """Return the masks of every text, in reading order."""
    results = [
        Matches[Masked](tokens=count, truncated=truncated)
        for count, truncated in zip(batch.tokens_per_text.tolist(), batch.truncated_texts.tolist(), strict=True)
    ]
    offsets = batch.offsets
    for text, token, candidates in zip(_texts(batch, tokens).tolist(), tokens.tolist(), words, strict=True):
        start, end = (None, None) if offsets is None else (int(offsets.starts[token]), int(offsets.ends[token]))
        results[text].append(Masked(words=candidates, start=start, end=end))
    return results


def _best(logits: FloatArray, vocabulary: Vocabulary, top_k: int) -> list[Word]:
    """Return the most probable words, the best first."""
    count = min(top_k, len(logits))
    largest = np.argpartition(-logits, count - 1)[:count]
    # Of equal words, the smallest ids are first.
    ids = largest[np.lexsort((largest, -logits[largest]))]
    scores = softmax(logits[None])[0][ids]
    return [
        Word(text=vocabulary.text(token), token=token, score=score)
        for token, score in zip(ids.tolist(), scores.tolist(), strict=True)
    ]
