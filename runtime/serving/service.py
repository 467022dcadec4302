"""A model for concurrent callers, with one text per call: from threads, or from asyncio."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Unpack, cast

import numpy as np

from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import FloatArray
from encort.runtime.engine.future import Future
from encort.runtime.serving.calls import Call, Item, RequestOptions, Tokenize, too_late
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.tasks.results import Answers, Classification, Matches, Span, TaggedWord
from encort.runtime.tasks.specs import Tasks, TaskSpec
from encort.runtime.text.token_batch import Text

_SHORT = 4096
"""Characters that are tokenized in the event loop: handing so few to a thread takes longer."""

_MakeCall = Callable[[TaskSpec[Any], Text, RequestOptions], Call[Any]]


class ServiceContext:
    """Context of a service, from `Model.serving`: `with` gives a `Service`, `async with` gives an `AsyncService`.

    Leaving the block refuses new texts and waits until the accepted texts are done.
    """

    def __init__(self, tokenize: Tokenize, tasks: Tasks, scheduler: Scheduler) -> None:
        """Connect a model's tokenizer and tasks with a scheduler."""
        self._tasks, self._scheduler = tasks, scheduler
        self._make_call = functools.partial(Call, tokenize, scheduler)

    def __enter__(self) -> "Service":
        return Service(self._tasks, self._make_call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.close()

    async def __aenter__(self) -> "AsyncService":
        return AsyncService(self._tasks, self._make_call)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._scheduler.close)


class Service:
    """Results for one text or pair per call, for any number of threads. They equal the results of `Model`.

    Every call raises the errors of the same method of `Model`, `OverloadedError` when the queue is full, and
    `DeadlineError` when there is no result within `timeout_s`.
    """

    def __init__(self, tasks: Tasks, make_call: "_MakeCall") -> None:
        self._tasks, self._make_call = tasks, make_call

    def embed(self, text: Text, **options: Unpack[RequestOptions]) -> FloatArray:
        """Return the sentence embedding of a text, `(dim,)` float32."""
        return self._request(_rows(self._tasks.embed()), text, options)

    def embed_tokens(self, text: Text, **options: Unpack[RequestOptions]) -> FloatArray:
        """Return the last hidden state of a text, `(tokens, dim)` float32, special tokens included."""
        return self._request(self._tasks.embed_tokens(), text, options)

    def classify(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> Classification:
        """Return the class of a text or pair."""
        return self._request(self._tasks.classify(head), text, options)

    def score(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> float:
        """Return the number that a regression head gives for a text or pair."""
        score = self._request(_rows(self._tasks.score(head)), text, options)
        return float(score)

    def tag(
        self,
        text: Text,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Matches[Span]:
        """Return the tagged spans of a text, in reading order."""
        return self._request(self._tasks.tag(head, aggregation=aggregation), text, options)

    def tag_words(
        self,
        words: Sequence[str],
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Matches[TaggedWord]:
        """Return one tag for each word of a text."""
        spec = self._tasks.tag_words(head, aggregation=aggregation)
        return self._request(spec, self._tasks.join_words(head, words), options)

    def answer(
        self,
        question: tuple[str, str],
        *,
        n_best: int = 1,
        null_threshold: float | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Answers:
        """Return answers to a pair of question and context, the most probable first; none if the context has none."""
        spec = self._tasks.answer(head, n_best=n_best, null_threshold=null_threshold)
        return self._request(spec, question, options)

    def predict(self, text: Text, **options: Unpack[RequestOptions]) -> Any:
        """Return what the bundle's task gives: the result of `classify`, `score`, `tag`, `answer` or `embed`."""
        result = self._request(self._tasks.predict(), text, options)
        return float(result) if isinstance(result, np.float32) else result

    def _request(self, spec: TaskSpec[list[Item]], text: Text, options: RequestOptions) -> Item:
        call: Call[Item] = self._make_call(spec, text, options)
        try:
            return call.finish(call.start().result(call.seconds_left))
        except TimeoutError:
            raise too_late() from None
        finally:
            call.give_up()


class AsyncService:
    """`Service` for asyncio. A cancelled task takes its text out of the queue."""

    def __init__(self, tasks: Tasks, make_call: "_MakeCall") -> None:
        self._tasks, self._make_call = tasks, make_call

    async def embed(self, text: Text, **options: Unpack[RequestOptions]) -> FloatArray:
        """Return the sentence embedding of a text, `(dim,)` float32."""
        return await self._request(_rows(self._tasks.embed()), text, options)

    async def embed_tokens(self, text: Text, **options: Unpack[RequestOptions]) -> FloatArray:
        """Return the last hidden state of a text, `(tokens, dim)` float32, special tokens included."""
        return await self._request(self._tasks.embed_tokens(), text, options)

    async def classify(
        self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]
    ) -> Classification:
        """Return the class of a text or pair."""
        return await self._request(self._tasks.classify(head), text, options)

    async def score(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> float:
        """Return the number that a regression head gives for a text or pair."""
        score = await self._request(_rows(self._tasks.score(head)), text, options)
        return float(score)

    async def tag(
        self,
        text: Text,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Matches[Span]:
        """Return the tagged spans of a text, in reading order."""
        return await self._request(self._tasks.tag(head, aggregation=aggregation), text, options)

    async def tag_words(
        self,
        words: Sequence[str],
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Matches[TaggedWord]:
        """Return one tag for each word of a text."""
        spec = self._tasks.tag_words(head, aggregation=aggregation)
        return await self._request(spec, self._tasks.join_words(head, words), options)

    async def answer(
        self,
        question: tuple[str, str],
        *,
        n_best: int = 1,
        null_threshold: float | None = None,
        head: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Answers:
        """Return answers to a pair of question and context, the most probable first; none if the context has none."""
        spec = self._tasks.answer(head, n_best=n_best, null_threshold=null_threshold)
        return await self._request(spec, question, options)

    async def predict(self, text: Text, **options: Unpack[RequestOptions]) -> Any:
        """Return what the bundle's task gives: the result of `classify`, `score`, `tag`, `answer` or `embed`."""
        result = await self._request(self._tasks.predict(), text, options)
        return float(result) if isinstance(result, np.float32) else result

    async def _request(self, spec: TaskSpec[list[Item]], text: Text, options: RequestOptions) -> Item:
        call: Call[Item] = self._make_call(spec, text, options)
        is_long = _is_long(text)
        try:
            async with asyncio.timeout(call.seconds_left):
                future = await asyncio.to_thread(call.start) if is_long else call.start()
                arrays = await _result_of(future)
                return await asyncio.to_thread(call.finish, arrays) if is_long else call.finish(arrays)
        except TimeoutError:
            raise too_late() from None
        finally:
            call.give_up()


async def _result_of(future: Future[Item]) -> Item:
    """Wait for a future in an event loop. Cancelling the task cancels the future."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits in it
            loop.call_soon_threadsafe(ended.set)

    future.add_done_callback(wake)
    try:
        await ended.wait()
    finally:
        future.cancel()
    return future.result()


def _is_long(text: object) -> bool:
    return sum(len(part) for part in (text if isinstance(text, tuple) else (text,)) if isinstance(part, str)) > _SHORT


def _rows(spec: TaskSpec[FloatArray]) -> TaskSpec[list[FloatArray]]:
    """Tell the type checker that an array is a list of its rows."""
    return cast("TaskSpec[list[FloatArray]]", spec)
