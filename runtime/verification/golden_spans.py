"""Compare the spans of a tagger with those of its golden vectors: what callers see of the logits."""

from collections.abc import Iterable, Mapping

import numpy as np

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.arrays import BoolArray, FloatArray
from encort.runtime.tasks.results import Span
from encort.runtime.tasks.spans import spans
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.words import SubwordMarks


def count_changed_texts(
    heads: Iterable[HeadInfo],
    batch: TokenBatch,
    outputs: Mapping[str, FloatArray],
    golden: Mapping[str, FloatArray],
    marks: SubwordMarks,
) -> int | None:
    """Return how many texts have other spans, with the aggregation of their head, summed over the taggers.

    Pairs of texts are left out, since they cannot be tagged.

    Args:
        heads: Heads of the bundle.
        batch: Sample texts, with the offsets of their tokens.
        outputs: Outputs of a variant by name.
        golden: Golden vectors by name.
        marks: Signs by which some aggregations find words.

    Returns:
        None without a tagger.
    """
    taggers = [head for head in heads if head.task is Task.TOKEN_CLASSIFICATION and head.outputs[0] in outputs]
    if not taggers:
        return None
    is_single = np.array([isinstance(text, str) for text in batch.texts])
    tokens = np.repeat(is_single, batch.lengths)
    texts = _select(batch, is_single, tokens)
    changed = 0
    for head in taggers:
        own, right = (
            spans(arrays[head.outputs[0]][tokens], head.labels, texts, aggregation=head.aggregation, marks=marks)
            for arrays in (outputs, golden)
        )
        changed += sum(_keys(left) != _keys(other) for left, other in zip(own, right, strict=True))
    return changed


def _select(batch: TokenBatch, rows: BoolArray, tokens: BoolArray) -> TokenBatch:
    """Return some texts of a batch, with their tokens."""
    return TokenBatch(
        ids=batch.ids[tokens],
        type_ids=batch.type_ids[tokens],
        cu_seqlens=np.cumsum([0, *batch.lengths[rows]], dtype=np.int64),
        truncated=batch.truncated[rows],
        texts=[text for text, is_chosen in zip(batch.texts, rows, strict=True) if is_chosen],
        offsets=None if batch.offsets is None else batch.offsets[tokens],
    )


def _keys(matches: Iterable[Span]) -> list[tuple[str, int, int]]:
    return [(span.label, span.start, span.end) for span in matches]
