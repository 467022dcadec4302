"""Long texts and pairs, read piece by piece side by side."""

from collections.abc import Callable, Sequence
from typing import Any

from encort.runtime.text.long_texts import LongText
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokens import Tokens, insert_bodies

_PAIR = 2**16
"""Least number of characters that are read of each text of a pair. The longer text keeps the odd token."""


class LongInput:
    """A long text, or a pair with a long text.

    Attributes:
        parts: The one or two texts.
    """

    def __init__(self, text: Text, *, piece: int, enough_tokens: float) -> None:
        """Start at the beginning; see `LongText`."""
        parts, least = ((text,), 0) if isinstance(text, str) else (text, _PAIR)
        self.parts = [LongText(part, piece=piece, enough_tokens=enough_tokens, least=least) for part in parts]

    def tokens(self, library: Any) -> Tokens:
        """Return the tokens that were read, with special tokens.

        Args:
            library: Tokenizer of the tokenizers library.
        """
        template = library.post_process(*(part.beginning for part in self.parts))
        return insert_bodies(Tokens.of(template), [part.tokens() for part in self.parts])


def read_inputs(inputs: Sequence[LongInput], encode: Callable[..., list[Any]], numbers: Sequence[int]) -> None:
    """Read inputs until enough of each is read, one piece of each at a time.

    Args:
        inputs: Inputs to read.
        encode: `Backend.encode`, with all options that are not given here.
        numbers: Number of each input for messages.
    """
    pending = [(part, number) for of_input, number in zip(inputs, numbers, strict=True) for part in of_input.parts]
    while pending:
        encodings = encode(
            [part.piece for part, _ in pending],
            numbers=[number for _, number in pending],
            add_special_tokens=False,
            with_offsets=True,
        )
        for (part, _), encoding in zip(pending, encodings, strict=True):
            part.take(encoding)
        pending = [(part, number) for part, number in pending if not part.is_done]
