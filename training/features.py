"""What a network reads: token ids a row, and padded batches of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from encort.runtime.text.token_batch import TokenBatch

IGNORED = -100
"""Label of a token that no loss is computed for, as transformers has it."""

_PADDING = {"labels": IGNORED}
"""What stands after the end of a row, by column; of token ids the padding token, of everything else 0."""


def token_columns(batch: TokenBatch, *, has_types: bool, prefix: str = "") -> dict[str, list[Any]]:
    """The inputs of a network, a list a row of the batch.

    Args:
        has_types: Token type ids are among them.
        prefix: Before the names of the columns.
    """
    columns = {f"{prefix}input_ids": batch.ids, f"{prefix}attention_mask": np.ones_like(batch.ids)}
    if has_types:
        columns[f"{prefix}token_type_ids"] = batch.type_ids
    rows = list(pairwise(batch.cu_seqlens))
    return {name: [flat[start:stop].tolist() for start, stop in rows] for name, flat in columns.items()}


@dataclass(frozen=True)
class Collator:
    """Rows to one batch of tensors, each column padded to its longest row."""

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        return {name: self._stacked(name, [row[name] for row in rows]) for name in rows[0] if name != "length"}

    def _stacked(self, name: str, values: Sequence[Any]) -> torch.Tensor:
        # One list of labels a text, as for several labels, is as long for all of them.
        if not isinstance(values[0], list):
            return torch.tensor(values)
        padding = self.pad_token_id if name.endswith("input_ids") else _PADDING.get(name, 0)
        longest = max(map(len, values))
        return torch.tensor([value + [padding] * (longest - len(value)) for value in values])
