"""`TokenBatch`: token ids of many texts, ragged, nothing padded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.arrays import BoolArray, Int64Array

Text = str | tuple[str, str]
"""One input: a text, or a pair of texts."""


TokenIds = list[int] | NDArray[np.integer]
"""Token ids of one single text, special tokens included, in its place."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenBatch:
    """Token ids of `n` rows, one after the other in flat arrays; a row is a text, or a window of one.

    Row `i` is `ids[cu_seqlens[i] : cu_seqlens[i + 1]]`, special tokens included.

    Attributes:
        ids: `(tokens,)` int64, token ids.
        type_ids: `(tokens,)` int64, 0 for the first text of a pair and 1 for the second.
        cu_seqlens: `(n + 1,)` int64, cumulative lengths, from 0 to `tokens`.
        truncated: `(n,)` bool, whether tokens were cut off at the limit.
        texts: What was tokenized; offsets point into it.
        offsets: Where the tokens stand in their texts.
        windows: Which rows are windows of one text; None where every row is a text.
        reversed: The same pairs with their texts exchanged, for a model of two encoders.
    """

    ids: Int64Array
    type_ids: Int64Array
    cu_seqlens: Int64Array
    truncated: BoolArray
    texts: Sequence[Text] = ()
    offsets: "TokenOffsets | None" = None
    windows: "Windows | None" = None
    reversed: "TokenBatch | None" = None

    def __len__(self) -> int:
        return len(self.truncated)

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each row, `(n,)` int64."""
        return np.diff(self.cu_seqlens)

    @property
    def tokens_of_texts(self) -> Int64Array:
        """Tokens of each text, `(texts,)` int64; those that windows share are counted once."""
        if self.windows is None:
            return self.lengths
        counted = np.add.reduceat(self.windows.own, self.cu_seqlens[:-1], dtype=np.int64)
        return np.bincount(self.windows.texts, weights=counted).astype(np.int64)

    @property
    def truncated_texts(self) -> BoolArray:
        """Whether tokens of a text were cut off, `(texts,)` bool."""
        return self.truncated if self.windows is None else np.zeros(int(self.windows.texts[-1]) + 1, np.bool_)

    def tokens(self, indices: Int64Array) -> tuple[Int64Array, BoolArray]:
        """Where the tokens of some rows lie in the flat arrays, and which of them count.

        Returns:
            `(len(indices), longest)` int64 and bool; past the end of a row its first token stands, and does not count.
        """
        starts = self.cu_seqlens[indices]
        lengths = self.cu_seqlens[indices + 1] - starts
        place = np.arange(lengths.max())
        counts = place < lengths[:, None]
        return starts[:, None] + np.where(counts, place, 0), counts

    def rows(self, indices: Int64Array) -> dict[str, Int64Array]:
        """Inputs of a graph for some rows, each `(len(indices), longest)` int64."""
        positions, counts = self.tokens(indices)
        rows = {"input_ids": self.ids[positions], "token_type_ids": self.type_ids[positions]}
        rows["attention_mask"] = counts.astype(np.int64)
        if self.reversed is not None:
            other = self.reversed.rows(indices)
            rows |= {f"reversed_{name}": other[name] for name in ("input_ids", "token_type_ids")}
        return rows


def joined(batches: Sequence[TokenBatch], texts: Sequence[Text]) -> TokenBatch:
    """Batches one after the other as one; all of them have `offsets`, or none has.

    Args:
        batches: At least one.
        texts: Of all of them.
    """
    offsets = [batch.offsets for batch in batches if batch.offsets is not None]
    reverse = [batch.reversed for batch in batches if batch.reversed is not None]
    return TokenBatch(
        ids=np.concatenate([batch.ids for batch in batches]),
        type_ids=np.concatenate([batch.type_ids for batch in batches]),
        cu_seqlens=np.cumsum([0, *np.concatenate([batch.lengths for batch in batches])], dtype=np.int64),
        truncated=np.concatenate([batch.truncated for batch in batches]),
        texts=texts,
        offsets=TokenOffsets.joined(offsets) if offsets else None,
        windows=_joined_windows(batches) if any(batch.windows for batch in batches) else None,
        reversed=joined(reverse, [text for batch in reverse for text in batch.texts]) if reverse else None,
    )


def _joined_windows(batches: Sequence[TokenBatch]) -> "Windows":
    firsts = np.cumsum([0, *(len(batch.truncated_texts) for batch in batches)])
    texts = [np.arange(len(batch)) if batch.windows is None else batch.windows.texts for batch in batches]
    own = [np.ones(len(batch.ids), np.bool_) if batch.windows is None else batch.windows.own for batch in batches]
    numbered = [first + each for first, each in zip(firsts, texts, strict=False)]
    return Windows(texts=np.concatenate(numbered), own=np.concatenate(own))


def padded(rows: Sequence[Mapping[str, Int64Array]]) -> dict[str, Int64Array]:
    """Inputs of a graph under each other, each row with zeros after its end, the mask among them."""
    if len(rows) == 1:
        return dict(rows[0])
    longest = max(row["input_ids"].shape[1] for row in rows)
    return {
        name: np.concatenate([np.pad(row[name], ((0, 0), (0, longest - row[name].shape[1]))) for row in rows])
        for name in rows[0]
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenOffsets:
    """Where each token of a `TokenBatch` stands in its text.

    Attributes:
        starts: `(tokens,)` int64, its first character.
        ends: `(tokens,)` int64, the character after its last.
        words: `(tokens,)` int64, number of the word it belongs to, -1 for special tokens.
        sequences: `(tokens,)` int64, 0 or 1 for the first and second text of a pair, -1 for special tokens.
    """

    starts: Int64Array
    ends: Int64Array
    words: Int64Array
    sequences: Int64Array

    @classmethod
    def joined(cls, parts: "Sequence[TokenOffsets]") -> "TokenOffsets":
        names = ("starts", "ends", "words", "sequences")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def __getitem__(self, tokens: NDArray[np.generic]) -> "TokenOffsets":
        return TokenOffsets(
            starts=self.starts[tokens],
            ends=self.ends[tokens],
            words=self.words[tokens],
            sequences=self.sequences[tokens],
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Windows:
    """Rows of a `TokenBatch` that are overlapping windows of longer texts.

    Attributes:
        texts: `(n,)` int64, number of the text that each row is of.
        own: `(tokens,)` bool, tokens that count in this window; every token of a text counts in exactly one, where
            it has the most neighbours.
    """

    texts: Int64Array
    own: BoolArray
