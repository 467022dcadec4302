"""`TokenBatch`: token ids of many texts, ragged, nothing padded."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenBatch:
    """Token ids of `n` texts, one after the other in flat arrays.

    Text `i` is `ids[cu_seqlens[i] : cu_seqlens[i + 1]]`, special tokens included.

    Attributes:
        ids: `(tokens,)` int64, token ids.
        type_ids: `(tokens,)` int64, 0 for the first text of a pair and 1 for the second.
        cu_seqlens: `(n + 1,)` int64, cumulative lengths, from 0 to `tokens`.
        truncated: `(n,)` bool, whether tokens were cut off at the limit.
    """

    ids: Int64Array
    type_ids: Int64Array
    cu_seqlens: Int64Array
    truncated: BoolArray

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each text, `(n,)` int64."""
        return np.diff(self.cu_seqlens)

    def rows(self, indices: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Ids and type ids of texts of one length, each `(len(indices), sequence)` int64."""
        starts = self.cu_seqlens[indices]
        sequence = int(self.cu_seqlens[indices[0] + 1] - starts[0])
        positions = starts[:, None] + np.arange(sequence)
        return self.ids[positions], self.type_ids[positions]
