"""`Tokens`: the tokens of one input in flat arrays, joined from the parts of a long text."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np

from encort.runtime.common.arrays import Int64Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Tokens:
    """Tokens of a text, of a pair, or of a part of a text. All arrays are `(tokens,)` int64.

    Attributes:
        ids: Token ids.
        type_ids: Token types.
        starts: Offset of the first character of each token.
        ends: Offset behind the last character of each token.
        words: Number of the word of each token; -1 for special tokens.
        sequences: 0 for the first text of a pair, 1 for the second, -1 for special tokens.
    """

    ids: Int64Array
    type_ids: Int64Array
    starts: Int64Array
    ends: Int64Array
    words: Int64Array
    sequences: Int64Array

    @classmethod
    def of(cls, encoding: Any) -> Self:
        """Copy an encoding of the tokenizers library."""
        offsets = np.array(encoding.offsets, np.int64).reshape(len(encoding), 2)
        # After `post_process` the first text of a pair has no number.
        sequences = np.array([part or 0 for part in encoding.sequence_ids], np.int64)
        return cls(
            ids=np.array(encoding.ids, np.int64),
            type_ids=np.array(encoding.type_ids, np.int64),
            starts=offsets[:, 0],
            ends=offsets[:, 1],
            words=np.array([-1 if word is None else word for word in encoding.word_ids], np.int64),
            sequences=np.where(np.array(encoding.special_tokens_mask, np.bool_), -1, sequences),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, tokens: slice) -> Self:
        """Return a range of the tokens."""
        return replace(self, **{field.name: getattr(self, field.name)[tokens] for field in fields(self)})


def concatenate_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Return several parts, at least one, as one."""
    return Tokens(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Tokens)}
    )


def insert_bodies(template: Tokens, bodies: Sequence[Tokens]) -> Tokens:
    """Return the special tokens of a template around other texts.

    Args:
        template: Special tokens around the beginning of one text, or of a pair.
        bodies: Tokens of the whole texts. A text without tokens at its beginning has none.
    """
    parts: list[Tokens] = []
    end = 0
    for number, body in enumerate(bodies):
        block = np.flatnonzero(template.sequences == number)
        if len(block):
            first = template[block[0] : block[0] + 1]
            type_ids, sequences = np.repeat(first.type_ids, len(body)), np.repeat(first.sequences, len(body))
            parts += [template[end : block[0]], replace(body, type_ids=type_ids, sequences=sequences)]
            end = int(block[-1]) + 1
    return concatenate_tokens([*parts, template[end:]])
