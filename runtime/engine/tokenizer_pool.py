"""Tokenization in the engine's threads, while the model runs the texts that were tokenized before."""

import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import DeadlineError, InputTypeError
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.future import Future
from encort.runtime.engine.pending import prefetch
from encort.runtime.text.backend import Check, check_nothing
from encort.runtime.text.masks import with_any_positions
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds, concatenate_batches
from encort.runtime.text.token_prompt import TokenPrompt
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.validation import check_texts, is_token_ids
from encort.runtime.text.windows import Overflow

CHUNK = 8192
"""Texts that are planned together: enough to find rows of equal length, few enough that memory stays flat."""
_SLICE = 16
"""Texts that one thread tokenizes at a time."""


class TokenizerPool:
    """A tokenizer that uses the threads and cores of an engine. Any number of threads may call it."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        engine: Engine,
        *,
        return_offsets: bool,
        reverse: bool,
        all_cores: bool,
        return_prompt_length: bool = False,
        return_mask_positions: bool = False,
    ) -> None:
        """Share the engine's threads.

        Args:
            tokenizer: The bundle's tokenizer.
            engine: Its threads tokenize.
            return_offsets: See `Tokenizer`.
            reverse: See `Tokenizer`.
            all_cores: The engine uses every core of the process, so the tokenizers library may do so too.
            return_prompt_length: See `Tokenizer`.
            return_mask_positions: Whether the graph reads `mask_position`.
        """
        self._tokenizer, self._engine = tokenizer, engine
        self._return_offsets, self._return_prompt_length = return_offsets, return_prompt_length
        self._reverse, self._all_cores = reverse, all_cores
        self._return_mask_positions = return_mask_positions

    def __call__(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        prompt: str | TokenPrompt = "",
        first: int = 0,
        return_offsets: bool = False,
        check: Check = check_nothing,
    ) -> TokenBatch:
        """Tokenize texts; see `Model.tokenize`, and `Tokenizer` for `check`, which is for few texts."""
        self._engine.check_open()
        tokenize = functools.partial(
            self._tokenize,
            overflow=overflow,
            stride=stride,
            prompt=prompt,
            return_offsets=return_offsets or self._return_offsets,
        )
        if not isinstance(texts, Sequence) or len(texts) <= _SLICE or is_token_ids(texts):
            return tokenize(texts, first=first, all_cores=False, check=check)
        return self._start(tokenize, cast("Sequence[Text]", texts), first).result()

    def stream(
        self,
        texts: Iterable[Text],
        *,
        overflow: Overflow,
        stride: int | None,
        chunk: int,
        prompt: str | TokenPrompt = "",
    ) -> Iterator[TokenBatch]:
        """Tokenize any number of texts, one chunk ahead of the caller; see `Model.tokenize_stream`."""
        if isinstance(texts, str | bytes):
            raise InputTypeError(f"expected texts, got one {type(texts).__name__}: put it in a list")
        check_whole("chunk", chunk, least=1)
        remaining = iter(texts)
        chunks = iter(lambda: list(itertools.islice(remaining, chunk)), [])
        tokenize = functools.partial(
            self._tokenize, overflow=overflow, stride=stride, prompt=prompt, return_offsets=self._return_offsets
        )
        return prefetch(
            lambda numbered: self._start(tokenize, numbered[1], first=numbered[0] * chunk), enumerate(chunks)
        )

    def _start(self, tokenize: Callable[..., TokenBatch], texts: Sequence[Text], first: int) -> "_PendingBatch":
        """Start tokenizing a list of texts in the engine's threads.

        Args:
            tokenize: `_tokenize` with the options of the call.
            texts: The texts.
            first: See `Tokenizer`.
        """
        texts = tuple(texts)  # the caller may change the list meanwhile
        has_ids = bool(is_token_ids(texts))
        size = len(texts) if self._all_cores or has_ids else _SLICE
        if not has_ids:
            check_texts(texts, first=first)
        futures = [
            self._engine.submit(tokenize, texts[start : start + size], first=first + start, all_cores=self._all_cores)
            for start in range(0, len(texts), size)
        ]
        return _PendingBatch(futures)

    def _tokenize(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow,
        stride: int | None,
        prompt: str | TokenPrompt,
        return_offsets: bool,
        first: int,
        all_cores: bool,
        check: Check = check_nothing,
    ) -> TokenBatch:
        """Tokenize in this thread, and count time and truncated texts."""
        start = time.perf_counter()
        try:
            batch = self._tokenizer(
                texts,
                overflow=overflow,
                stride=stride,
                prompt=prompt,
                return_offsets=return_offsets,
                return_prompt_length=self._return_prompt_length,
                first=first,
                reverse=self._reverse,
                all_cores=all_cores,
                check=check,
            )
        except DeadlineError:
            self._engine.recorder.count(expired=1)
            raise
        self._engine.recorder.observe("tokenize_seconds", time.perf_counter() - start)
        self._engine.recorder.count(truncated=int(batch.truncated.sum()))
        return with_any_positions(batch) if self._return_mask_positions else batch


class _PendingBatch:
    """Texts that are tokenized in the engine's threads; see `Pending`."""

    def __init__(self, futures: Sequence[Future[TokenBatch]]) -> None:
        self._futures = futures

    def result(self) -> TokenBatch:
        """Wait for all parts and return them as one batch."""
        return concatenate_batches([future.result() for future in self._futures])

    def cancel(self) -> None:
        """Tokenize no more parts."""
        for future in self._futures:
            future.cancel()
