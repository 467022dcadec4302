"""What `encort bench` feeds a bundle: the user's texts, or the bundle's own sample texts put together."""

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
from encort.runtime.verification.golden import Golden

_TOGETHER = 8
"""Most sample texts that are put together."""
_SHORT = 8
"""So many of the shortest stand first in pairs, as questions do."""


def workload(bundle: Bundle, file: Path | None = None, column: str | None = None) -> list[Text]:
    """Texts of mixed length, or pairs where the bundle reads pairs.

    Args:
        file: Of the user's; None puts neighbours among the bundle's sample texts together, from one to eight.
        column: Of a table.

    Raises:
        InputError: There are none in the file.
    """
    if file is not None:
        texts = [text for text in read_texts((), file, column) if "".join(text).strip()]
        if not texts:
            raise InputError(f"{file} has no texts that are not empty")
        return texts
    samples = Golden.load(bundle.path(GOLDEN_FILE)).texts
    parts = list(dict.fromkeys(part for text in samples for part in ((text,) if isinstance(text, str) else text)))
    joined = [
        " ".join(parts[first : first + count])
        for count in range(1, _TOGETHER + 1)
        for first in range(len(parts) - count + 1)
    ]
    random.Random(13).shuffle(joined)  # noqa: S311 - no secret
    if not _reads_pairs(bundle):
        return [*joined]
    short = sorted(parts, key=len)[:_SHORT]
    return [(short[index % len(short)], text) for index, text in enumerate(joined)]


def overflow_of(bundle: Bundle) -> Overflow:
    """What becomes of texts over the limit when a bundle is served."""
    return "window" if bundle.manifest.task is Task.QUESTION_ANSWERING else "truncate"


def _reads_pairs(bundle: Bundle) -> bool:
    tasks = {Task.QUESTION_ANSWERING, Task.NEXT_SENTENCE_PREDICTION}
    return bundle.manifest.task in tasks or any(variant.reads_reversed for variant in bundle.manifest.variants)


class Shaper:
    """Cuts texts to a number of tokens."""

    def __init__(self, bundle: Bundle, texts: Sequence[Text]) -> None:
        """Take texts to cut from; of a pair the second is cut."""
        self.limit = bundle.manifest.max_length
        self._tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=self.limit)
        firsts = [text[0] for text in texts if isinstance(text, tuple)]
        self._first = min(firsts, key=len) if firsts else None
        words = " ".join(text if isinstance(text, str) else text[1] for text in texts)
        while len(words.split()) < 2 * self.limit:
            words = f"{words} {words}"
        self._words = words

    def __call__(self, tokens: int) -> Text:
        """The shortest beginning of all texts that has so many tokens or more."""
        low, high = 1, len(self._words)
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.tokens(self._cut(middle)) >= tokens else (middle + 1, high)
        return self._cut(low)

    def tokens(self, text: Text) -> int:
        """Of a text, special ones included, at most the limit."""
        return int(self._tokenizer([text]).lengths[0])

    def _cut(self, characters: int) -> Text:
        words = self._words[:characters]
        return words if self._first is None else (self._first, words)
