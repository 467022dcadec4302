"""`TokenBatch`: the token ids of many texts, ragged, without padding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.arrays import BoolArray, Int64Array

if TYPE_CHECKING:
    from encort.runtime.text.token_prompt import TokenPrompt

Text = str | tuple[str, str]
"""One input: a text, or a pair of texts."""

TokenIds = list[int] | NDArray[np.integer]
"""Token ids in place of a single text, special tokens included."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenBatch:
    """Token ids of `n` rows, one after the other in flat arrays. A row is a text, or a window of a text.

    Row `i` is `ids[cu_seqlens[i] : cu_seqlens[i + 1]]`, special tokens included.

    Attributes:
        ids: Token ids, `(tokens,)` int64.
        type_ids: Token types, `(tokens,)` int64: 0 for the first text of a pair, 1 for the second.
        cu_seqlens: Cumulative lengths of the rows, `(n + 1,)` int64, from 0 to `tokens`.
        truncated: Whether tokens were cut off at the limit, `(n,)` bool.
        texts: The texts that were tokenized; offsets point into them.
        offsets: Offsets of the tokens in their texts, if they were asked for.
        windows: Texts of the rows, if some rows are windows; None if every row is a text.
        reversed: The same pairs with their texts swapped, for a dual encoder.
        prompt: The prompt that was put before each text. `texts` have it at their beginning. A `TokenPrompt` added
            tokens, too.
        prompt_length: Number of tokens at the beginning of every row that are special or of the prompt, 0 without a
            prompt; None for models that pool the prompt like any other token.
        attended: Whether other tokens attend to a token, `(tokens,)` bool; None: to all.
        mask_positions: Number of the token in each row whose word is predicted, `(n,)` int64; None for models that
            predict no words.
    """

    ids: Int64Array
    type_ids: Int64Array
    cu_seqlens: Int64Array
    truncated: BoolArray
    texts: Sequence[Text] = ()
    offsets: "TokenOffsets | None" = None
    windows: "Windows | None" = None
    reversed: "TokenBatch | None" = None
    prompt: "str | TokenPrompt" = ""
    prompt_length: int | None = None
    attended: BoolArray | None = None
    mask_positions: Int64Array | None = None

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.truncated)

    @property
    def lengths(self) -> Int64Array:
        """Tokens of each row, `(n,)` int64."""
        return np.diff(self.cu_seqlens)

    @property
    def tokens_per_text(self) -> Int64Array:
        """Tokens of each text, `(texts,)` int64. Tokens that windows share are counted once."""
        if self.windows is None:
            return self.lengths
        own_tokens = np.add.reduceat(self.windows.own, self.cu_seqlens[:-1], dtype=np.int64)
        return np.bincount(self.windows.texts, weights=own_tokens).astype(np.int64)

    @property
    def truncated_texts(self) -> BoolArray:
        """Whether tokens of each text were cut off, `(texts,)` bool."""
        return self.truncated if self.windows is None else np.zeros(int(self.windows.texts[-1]) + 1, np.bool_)

    def tokens(self, indices: Int64Array) -> tuple[Int64Array, BoolArray]:
        """Return where the tokens of some rows are in the flat arrays, padded to the longest row.

        Args:
            indices: Numbers of the rows.

        Returns:
            Positions, `(len(indices), longest)` int64, and which of them are tokens, bool. Padding has the position of
            the row's first token.
        """
        starts = self.cu_seqlens[indices]
        lengths = self.cu_seqlens[indices + 1] - starts
        columns = np.arange(lengths.max())
        is_token = columns < lengths[:, None]
        return starts[:, None] + np.where(is_token, columns, 0), is_token

    def rows(self, indices: Int64Array) -> dict[str, Int64Array]:
        """Return inputs of a graph for some rows, each `(len(indices), longest)` int64, with `attention_mask`.

        The mask is 1 on tokens that others attend to.

        With `prompt_length` or `mask_positions`, they are inputs too, `(len(indices),)` int64.
        """
        positions, is_token = self.tokens(indices)
        rows = {"input_ids": self.ids[positions], "token_type_ids": self.type_ids[positions]}
        is_attended = is_token if self.attended is None else is_token & self.attended[positions]
        rows["attention_mask"] = is_attended.astype(np.int64)
        if self.reversed is not None:
            swapped = self.reversed.rows(indices)
            rows |= {f"reversed_{name}": swapped[name] for name in ("input_ids", "token_type_ids")}
        if self.prompt_length is not None:
            rows["prompt_length"] = np.full(len(indices), self.prompt_length, np.int64)
        if self.mask_positions is not None:
            rows["mask_position"] = self.mask_positions[indices]
        return rows


def concatenate_batches(batches: Sequence[TokenBatch]) -> TokenBatch:
    """Return several batches, at least one, as one. All have the same prompt; all of them have `offsets`, or none."""
    offsets = [batch.offsets for batch in batches if batch.offsets is not None]
    reverse = [batch.reversed for batch in batches if batch.reversed is not None]
    attended = [batch.attended for batch in batches if batch.attended is not None]
    positions = [batch.mask_positions for batch in batches if batch.mask_positions is not None]
    return TokenBatch(
        ids=np.concatenate([batch.ids for batch in batches]),
        type_ids=np.concatenate([batch.type_ids for batch in batches]),
        cu_seqlens=np.cumsum([0, *np.concatenate([batch.lengths for batch in batches])], dtype=np.int64),
        truncated=np.concatenate([batch.truncated for batch in batches]),
        texts=tuple(text for batch in batches for text in batch.texts),
        offsets=TokenOffsets.concatenate(offsets) if offsets else None,
        windows=_concatenate_windows(batches) if any(batch.windows for batch in batches) else None,
        reversed=concatenate_batches(reverse) if reverse else None,
        prompt=batches[0].prompt,
        prompt_length=batches[0].prompt_length,
        attended=np.concatenate(attended) if attended else None,
        mask_positions=np.concatenate(positions) if positions else None,
    )


def _concatenate_windows(batches: Sequence[TokenBatch]) -> "Windows":
    first_texts = np.cumsum([0, *(len(batch.truncated_texts) for batch in batches)])
    texts = [np.arange(len(batch)) if batch.windows is None else batch.windows.texts for batch in batches]
    own = [np.ones(len(batch.ids), np.bool_) if batch.windows is None else batch.windows.own for batch in batches]
    numbered = [first + numbers for first, numbers in zip(first_texts, texts, strict=False)]
    return Windows(texts=np.concatenate(numbered), own=np.concatenate(own))


def pad_rows(rows: Sequence[Mapping[str, Int64Array]]) -> dict[str, Int64Array]:
    """Stack inputs of a graph, and pad each with zeros to the longest. `attention_mask` is padded too."""
    if len(rows) == 1:
        return dict(rows[0])
    return {name: _stack([row[name] for row in rows]) for name in rows[0]}


def _stack(arrays: Sequence[Int64Array]) -> Int64Array:
    """Concatenate arrays of several texts: one value per text, or one per token."""
    if arrays[0].ndim == 1:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, longest - array.shape[1]))) for array in arrays])


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenOffsets:
    """Offsets of the tokens of a `TokenBatch` in their texts.

    Attributes:
        starts: Offset of the first character of each token, `(tokens,)` int64.
        ends: Offset behind the last character of each token, `(tokens,)` int64.
        words: Number of the word of each token, `(tokens,)` int64; -1 for special tokens.
        sequences: `(tokens,)` int64: 0 for the first text of a pair, 1 for the second, -1 for special tokens.
    """

    starts: Int64Array
    ends: Int64Array
    words: Int64Array
    sequences: Int64Array

    @classmethod
    def concatenate(cls, parts: "Sequence[TokenOffsets]") -> "TokenOffsets":
        """Return the offsets of several batches as one."""
        names = ("starts", "ends", "words", "sequences")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    def __getitem__(self, tokens: NDArray[np.generic]) -> "TokenOffsets":
        """Return the offsets of some tokens."""
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
        texts: Number of the text of each row, `(n,)` int64.
        own: Whether a token counts in its window, `(tokens,)` bool. A token that windows share counts in exactly one of
            them: the one where it has the most neighbours.
    """

    texts: Int64Array
    own: BoolArray
