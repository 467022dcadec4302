"""Texts for `encort bench`: the user's, or longer ones made from the bundle's sample texts."""

import random
from collections.abc import Sequence
from pathlib import Path

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Task
from encort.runtime.cli.readers import read_texts
from encort.runtime.common.errors import InputError
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.windows import Overflow
from encort.runtime.verification.golden_vectors import Golden

_MAX_JOINED = 8
"""Most sample texts that are joined to one text."""
_FIRST_TEXTS = 8
"""Number of the shortest sample texts; they come first in pairs, as questions do."""


def workload(
    bundle: Bundle, file: Path | None = None, column: str | None = None, header: str | None = None
) -> list[Text]:
    """Return texts of mixed length, or pairs if the bundle reads pairs.

    Args:
        bundle: Bundle to measure.
        file: The user's texts; None joins one to eight neighbours among the bundle's sample texts.
        column: Column of a table.
        header: Names of the columns of a table without them, separated by commas.

    Raises:
        InputError: The file has no texts.
    """
    if file is not None:
        texts = [text for text in read_texts((), file, column, header) if "".join(text).strip()]
        if not texts:
            raise InputError(f"{file} has no texts that are not empty")
        return texts
    samples = Golden.load(bundle.read(GOLDEN_FILE)).texts
    parts = list(dict.fromkeys(part for text in samples for part in ((text,) if isinstance(text, str) else text)))
    joined = [
        " ".join(parts[start : start + count])
        for count in range(1, _MAX_JOINED + 1)
        for start in range(len(parts) - count + 1)
    ]
    random.Random(13).shuffle(joined)  # noqa: S311 - no secret
    if not _reads_pairs(bundle):
        return [*joined]
    shortest = sorted(parts, key=len)[:_FIRST_TEXTS]
    return [(shortest[index % len(shortest)], text) for index, text in enumerate(joined)]


def serving_overflow(bundle: Bundle) -> Overflow:
    """Return what serving does with texts over the limit: windows for questions, truncation otherwise."""
    return "window" if bundle.manifest.task is Task.QUESTION_ANSWERING else "truncate"


def _reads_pairs(bundle: Bundle) -> bool:
    tasks = {Task.QUESTION_ANSWERING, Task.NEXT_SENTENCE_PREDICTION}
    return bundle.manifest.task in tasks or any(variant.reads_reversed for variant in bundle.manifest.variants)


class TextCutter:
    """Makes texts with a given number of tokens.

    Attributes:
        limit: Most tokens of a text.
    """

    def __init__(self, bundle: Bundle, texts: Sequence[Text]) -> None:
        """Join the texts, to cut from; the first text of every pair stays whole."""
        self.limit = bundle.manifest.max_length
        self._tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=self.limit)
        first_texts = [text[0] for text in texts if isinstance(text, tuple)]
        self._first_text = min(first_texts, key=len) if first_texts else None
        words = " ".join(text if isinstance(text, str) else text[1] for text in texts)
        while len(words.split()) < 2 * self.limit:
            words = f"{words} {words}"
        self._words = words

    def cut(self, tokens: int) -> Text:
        """Return the shortest beginning of the joined texts that has at least this many tokens."""
        low, high = 1, len(self._words)
        while low < high:
            middle = (low + high) // 2
            if self.count_tokens(self._beginning(middle)) >= tokens:
                high = middle
            else:
                low = middle + 1
        return self._beginning(low)

    def count_tokens(self, text: Text) -> int:
        """Return the number of tokens of a text, special tokens included, at most the limit."""
        return int(self._tokenizer([text]).lengths[0])

    def _beginning(self, characters: int) -> Text:
        words = self._words[:characters]
        return words if self._first_text is None else (self._first_text, words)
