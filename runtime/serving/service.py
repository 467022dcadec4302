"""A model for concurrent callers, with one text per call: from threads, or from asyncio."""

import asyncio
import contextlib
import functools
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypedDict, TypeVar, Unpack, cast

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number
from encort.runtime.common.errors import DeadlineError, InputError
from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.tasks.results import Answers, Classification, Matches, Span
from encort.runtime.tasks.specs import Tasks, TaskSpec
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.windows import Overflow

_SHORT = 4096
"""Characters that are tokenized in the event loop: handing so few to a thread takes longer."""

Item = TypeVar("Item")
Tokenize = Callable[..., TokenBatch]


class RequestOptions(TypedDict, total=False):
    """Options of every call of a service.

    Attributes:
        timeout_s: Seconds until `DeadlineError`. The text is not run after that. None waits without limit.
        overflow: See `Model.tokenize`.
        stride: See `Model.tokenize`.
    """

    timeout_s: float | None
    overflow: Overflow | None
    stride: int | None


class ServiceContext:
    """Context of a service, from `Model.serving`: `with` gives a `Service`, `async with` gives an `AsyncService`.

    Leaving the block refuses new texts and waits until the accepted texts are done.
    """

    def __init__(self, tokenize: Tokenize, tasks: Tasks, scheduler: Scheduler) -> None:
        """Connect a model's tokenizer and tasks with a scheduler."""
        self._tasks, self._scheduler = tasks, scheduler
        self._queue = _RequestQueue(tokenize, scheduler)

    def __enter__(self) -> "Service":
        return Service(self._tasks, self._queue)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.close()

    async def __aenter__(self) -> "AsyncService":
        return AsyncService(self._tasks, self._queue)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._scheduler.close)


class Service:
    """Results for one text or pair per call, for any number of threads. They equal the results of `Model`.

    Every call raises the errors of the same method of `Model`, `OverloadedError` when the queue is full, and
    `DeadlineError` when there is no result within `timeout_s`.
    """

    def __init__(self, tasks: Tasks, queue: "_RequestQueue") -> None:
        self._tasks, self._queue = tasks, queue

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

    def tag(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> Matches[Span]:
        """Return the tagged spans of a text, in reading order."""
        return self._request(self._tasks.tag(head), text, options)

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
        deadline = _deadline(options)
        pending = self._queue.submit(spec, self._queue.tokenize(spec, text, options), deadline)
        try:
            return pending.finish(pending.future.result(_seconds_until(deadline)))
        except TimeoutError:
            raise _too_late() from None
        finally:
            pending.future.cancel()


class AsyncService:
    """`Service` for asyncio. A cancelled task takes its text out of the queue."""

    def __init__(self, tasks: Tasks, queue: "_RequestQueue") -> None:
        self._tasks, self._queue = tasks, queue

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

    async def tag(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> Matches[Span]:
        """Return the tagged spans of a text, in reading order."""
        return await self._request(self._tasks.tag(head), text, options)

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
        deadline = _deadline(options)
        tokenize = functools.partial(self._queue.tokenize, spec, text, options)
        try:
            async with asyncio.timeout(_seconds_until(deadline)):
                batch = await asyncio.to_thread(tokenize) if _is_long(text) else tokenize()
                pending = self._queue.submit(spec, batch, deadline)
                arrays = await _result_of(pending.future)
                return await asyncio.to_thread(pending.finish, arrays) if _is_long(text) else pending.finish(arrays)
        except TimeoutError:
            raise _too_late() from None


class _RequestQueue:
    """Tokenizes a caller's text, then queues it."""

    def __init__(self, tokenize: Tokenize, scheduler: Scheduler) -> None:
        self._tokenize, self._scheduler = tokenize, scheduler

    def tokenize(self, spec: TaskSpec[Any], text: Text, options: RequestOptions) -> TokenBatch:
        """Return the token ids of one text, after the checks of its task."""
        overflow = options.get("overflow")
        policy = spec.overflow if overflow is None else overflow
        batch = self._tokenize([text], overflow=policy, stride=options.get("stride"))
        spec.check(batch)
        return batch

    def submit(self, spec: TaskSpec[list[Item]], batch: TokenBatch, deadline: float) -> "_PendingRequest[Item]":
        """Queue a tokenized text; see `Scheduler.submit`."""
        return _PendingRequest(spec, batch, self._scheduler.submit(batch, spec.outputs, deadline=deadline))


class _PendingRequest(Generic[Item]):
    """One text in the queue or in a run."""

    def __init__(self, spec: TaskSpec[list[Item]], batch: TokenBatch, future: Future[Arrays]) -> None:
        self.future = future
        self._spec, self._batch = spec, batch

    def finish(self, arrays: Arrays) -> Item:
        """Return the result of the text from the outputs of its run."""
        return self._spec.finish(self._batch, arrays)[0]


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


def _deadline(options: RequestOptions) -> float:
    """Return the deadline of a request by `time.monotonic`, infinite without `timeout_s`."""
    if unknown := options.keys() - RequestOptions.__annotations__:
        expected = ", ".join(RequestOptions.__annotations__)
        raise TypeError(f"unexpected keyword argument {unknown.pop()!r}; expected {expected}")
    timeout_s = options.get("timeout_s")
    if timeout_s is None:
        return math.inf
    check_number("timeout_s", timeout_s)
    if not 0 < timeout_s <= threading.TIMEOUT_MAX:
        raise InputError(f"timeout_s must be a number above 0, got {timeout_s}")
    return time.monotonic() + float(timeout_s)  # a float32 of numpy cannot hold the clock


def _seconds_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


def _too_late() -> DeadlineError:
    return DeadlineError("there was no result within timeout_s; give it longer, or serve with more cores")


def _is_long(text: object) -> bool:
    return sum(len(part) for part in (text if isinstance(text, tuple) else (text,)) if isinstance(part, str)) > _SHORT


def _rows(spec: TaskSpec[FloatArray]) -> TaskSpec[list[FloatArray]]:
    """Tell the type checker that an array is a list of its rows."""
    return cast("TaskSpec[list[FloatArray]]", spec)
