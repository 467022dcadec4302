"""Make the inputs of a network: token ids of each row, and batches that are padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from encort.runtime.text.token_batch import TokenBatch

IGNORED = -100
"""Label of tokens that add nothing to the loss, as in transformers."""

_PADDING = {"labels": IGNORED}
"""Padding by column. Token ids are padded with the padding token, all other columns with 0."""
SEVERAL = "negative_"
"""Prefix of columns that have any number of texts in each row, and so in each batch."""


def token_columns(batch: TokenBatch, *, has_types: bool, prefix: str = "") -> dict[str, list[Any]]:
    """Return the inputs of a network, one column per input, with one list of ints per row of the batch.

    Args:
        batch: Token ids of the rows.
        has_types: Whether there is a column of token type ids.
        prefix: Put before the name of each column.
    """
    columns = {f"{prefix}input_ids": batch.ids, f"{prefix}attention_mask": np.ones_like(batch.ids)}
    if has_types:
        columns[f"{prefix}token_type_ids"] = batch.type_ids
    rows = list(pairwise(batch.cu_seqlens))
    return {name: [flat[start:stop].tolist() for start, stop in rows] for name, flat in columns.items()}


@dataclass(frozen=True)
class Collator:
    """Makes one batch of tensors from rows; each column is padded to its longest row.

    Token columns become `(batch, sequence) int64`; those of negatives have one row for each of them. The column
    `length` is left out.

    Attributes:
        pad_token_id: Token that pads the columns of token ids.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {name: self._stack(name, [row[name] for row in rows]) for name in rows[0] if name != "length"}

    def _stack(self, name: str, values: Sequence[Any]) -> torch.Tensor:
        if name.startswith(SEVERAL):
            values = [value for several in values for value in several]
        if not isinstance(values[0], list):
            return torch.tensor(values)
        # Labels of multi-label classification are lists too; they are equally long, so that nothing is padded.
        padding = self.pad_token_id if name.endswith("input_ids") else _PADDING.get(name, 0)
        longest = max(map(len, values))
        return torch.tensor([value + [padding] * (longest - len(value)) for value in values])
