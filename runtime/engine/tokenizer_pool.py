"""Tokenization in the engine's threads, while the model runs what was tokenized before."""

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from encort.runtime.common.checks import check_whole, choice
from encort.runtime.common.errors import InputTypeError
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.pending import Pending, prefetch
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds, joined
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.validation import check_texts, is_token_ids
from encort.runtime.text.windows import Overflow

CHUNK = 8192
"""Texts that are planned together: enough of every length, few enough that memory stays flat."""
_SLICE = 16
"""Texts that one thread tokenizes at a time."""


class TokenizerPool:
    """A tokenizer over the threads and the cores of an engine; any number of threads may call it."""

    def __init__(
        self, tokenizer: Tokenizer, engine: Engine, *, return_offsets: bool, reverse: bool, all_cores: bool
    ) -> None:
        """See `Tokenizer` for the options, which are those of a model.

        Args:
            all_cores: The engine has every core that the process may use, as the library below takes them too.
        """
        self._tokenizer, self._engine = tokenizer, engine
        self._return_offsets, self._reverse, self._all_cores = return_offsets, reverse, all_cores

    def __call__(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: str = Overflow.TRUNCATE,
        stride: int | None = None,
        first: int = 0,
    ) -> TokenBatch:
        """See `Model.tokenize`."""
        return self._begin(texts, choice(Overflow, "overflow", overflow), stride, first).result()

    def stream(self, texts: Iterable[Text], *, overflow: str, stride: int | None, chunk: int) -> Iterator[TokenBatch]:
        """See `Model.tokenize_stream`."""
        if isinstance(texts, str | bytes):
            raise InputTypeError(f"expected texts, got one {type(texts).__name__}: put it in a list")
        check_whole("chunk", chunk, least=1)
        policy, remaining = choice(Overflow, "overflow", overflow), iter(texts)
        chunks = iter(lambda: list(itertools.islice(remaining, chunk)), [])
        numbered = enumerate(chunks)
        return prefetch(lambda part: self._begin(part[1], policy, stride, part[0] * chunk), numbered)

    def _begin(
        self, texts: Sequence[Text] | Sequence[TokenIds], overflow: Overflow, stride: int | None, first: int
    ) -> Pending[TokenBatch]:
        """Begin in the engine's threads."""
        self._engine.check_open()

        def tokenize(
            part: Sequence[Text] | Sequence[TokenIds], start: int = 0, *, all_cores: bool = False
        ) -> TokenBatch:
            begin = time.perf_counter()
            batch = self._tokenizer(
                part,
                overflow=overflow,
                stride=stride,
                first=first + start,
                return_offsets=self._return_offsets,
                reverse=self._reverse,
                all_cores=all_cores,
            )
            self._engine.recorder.observe("tokenize_seconds", time.perf_counter() - begin)
            self._engine.recorder.count(truncated=int(batch.truncated.sum()))
            return batch

        if not isinstance(texts, Sequence) or len(texts) <= _SLICE or is_token_ids(texts):
            return Pending(lambda: tokenize(texts), cancel=lambda: None)
        whole = cast("Sequence[Text]", tuple(texts))
        check_texts(whole, first=first)
        starts = range(0, len(whole), len(whole) if self._all_cores else _SLICE)
        parts = [
            self._engine.submit(tokenize, whole[start:stop], start, all_cores=self._all_cores)
            for start, stop in zip(starts, [*starts[1:], len(whole)], strict=True)
        ]

        def cancel() -> None:
            for part in parts:
                part.cancel()

        return Pending(lambda: joined([part.result() for part in parts], whole), cancel)
