"""Outputs of masked words in the form of the golden vectors: one row per text, from every variant."""

from collections.abc import Mapping, Sequence

import numpy as np

from encort.runtime.bundle.manifest import MASK_POSITION, HeadInfo, Task, Variant
from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.engine.session import Runner


def run_rows(
    session: Runner, variant: Variant, names: Sequence[str], rows: Mapping[str, Int64Array], heads: Sequence[HeadInfo]
) -> list[FloatArray]:
    """Run a graph. Of logits of words for all tokens, return those at `mask_position`, `(batch, vocabulary)`."""
    arrays = session.run(names, rows)
    for index, name in enumerate(names):
        if variant.is_tokenwise(name) and not has_token_rows(variant, name, heads):
            positions = rows[MASK_POSITION]
            arrays[index] = arrays[index][np.arange(len(positions)), positions]
    return arrays


def has_token_rows(variant: Variant, name: str, heads: Sequence[HeadInfo]) -> bool:
    """Return whether an output of `run_rows` has one row per token."""
    of_words = {output for head in heads if head.task is Task.FILL_MASK for output in head.outputs}
    return variant.is_tokenwise(name) and name not in of_words
