"""A model for concurrent callers, one text a call: from threads, or from asyncio."""

import asyncio
import functools
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypedDict, TypeVar, Unpack, cast

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number
from encort.runtime.common.errors import DeadlineError, InputError
from encort.runtime.serving.scheduler import Arrays, Scheduler
from encort.runtime.tasks.results import Answer, Classification, Matches, Span
from encort.runtime.tasks.specs import Tasks, TaskSpec
from encort.runtime.text.token_batch import Text, TokenBatch

_SHORT = 4096
"""Characters that are tokenized in the event loop: handing them to a thread takes longer."""

Item = TypeVar("Item")
Tokenize = Callable[..., TokenBatch]


class RequestOptions(TypedDict, total=False):
    """What every call of a service takes.

    Attributes:
        timeout_s: Seconds until `DeadlineError`; after that the text is not run any more. None waits.
        overflow: See `Model.tokenize`.
        stride: See `Model.tokenize`.
    """

    timeout_s: float | None
    overflow: str | None
    stride: int | None


_WISHES = tuple(RequestOptions.__annotations__)


class ServiceContext:
    """What `Model.serving` gives: `with` makes a `Service` of it, `async with` an `AsyncService`.

    Leaving the block takes no more texts, and waits until those that were taken are done.
    """

    def __init__(self, tokenize: Tokenize, tasks: Tasks, scheduler: Scheduler) -> None:
        self._intake, self._scheduler = _RequestQueue(tokenize, scheduler), scheduler
        self._tasks = tasks

    def __enter__(self) -> "Service":
        return Service(self._tasks, self._intake)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.close()

    async def __aenter__(self) -> "AsyncService":
        return AsyncService(self._tasks, self._intake)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._scheduler.close)


class Service:
    """Results for one text or pair a call, for any number of threads; they are those of `Model`.

    Every call may raise what `Model` raises, `OverloadedError` when the queue is full, and `DeadlineError`.
    """

    def __init__(self, tasks: Tasks, intake: "_RequestQueue") -> None:
        self._tasks, self._intake = tasks, intake

    def embed(self, text: Text, **wishes: Unpack[RequestOptions]) -> FloatArray:
        """Its sentence embedding, `(dim,)` float32."""
        return self._ask(_listed(self._tasks.embed()), text, wishes)

    def embed_tokens(self, text: Text, **wishes: Unpack[RequestOptions]) -> FloatArray:
        """Its last hidden state, `(tokens, dim)` float32."""
        return self._ask(self._tasks.embed_tokens(), text, wishes)

    def classify(self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]) -> Classification:
        return self._ask(self._tasks.classify(head), text, wishes)

    def score(self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]) -> float:
        score = self._ask(_listed(self._tasks.score(head)), text, wishes)
        return float(score)

    def tag(self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]) -> Matches[Span]:
        return self._ask(self._tasks.tag(head), text, wishes)

    def answer(
        self, question: tuple[str, str], *, n_best: int = 1, head: str | None = None, **wishes: Unpack[RequestOptions]
    ) -> Matches[Answer]:
        """Answers to a pair of question and context, the most probable first."""
        return self._ask(self._tasks.answer(head, n_best=n_best), question, wishes)

    def predict(self, text: Text, **wishes: Unpack[RequestOptions]) -> Any:
        """Whatever the bundle's task is."""
        found = self._ask(self._tasks.predict(), text, wishes)
        return float(found) if isinstance(found, np.float32) else found

    def _ask(self, call: TaskSpec[list[Item]], text: Text, wishes: RequestOptions) -> Item:
        deadline = self._intake.deadline(wishes)
        batch = self._intake.tokenize(call, text, wishes)
        ticket = self._intake.queue(call, batch, deadline)
        try:
            return ticket.result(ticket.future.result(_seconds_until(deadline)))
        except TimeoutError:
            raise _late() from None
        finally:
            ticket.future.cancel()


class AsyncService:
    """The same as `Service` for asyncio; a task that is cancelled takes its text out of the queue."""

    def __init__(self, tasks: Tasks, intake: "_RequestQueue") -> None:
        self._tasks, self._intake = tasks, intake

    async def embed(self, text: Text, **wishes: Unpack[RequestOptions]) -> FloatArray:
        """Its sentence embedding, `(dim,)` float32."""
        return await self._ask(_listed(self._tasks.embed()), text, wishes)

    async def embed_tokens(self, text: Text, **wishes: Unpack[RequestOptions]) -> FloatArray:
        """Its last hidden state, `(tokens, dim)` float32."""
        return await self._ask(self._tasks.embed_tokens(), text, wishes)

    async def classify(
        self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]
    ) -> Classification:
        return await self._ask(self._tasks.classify(head), text, wishes)

    async def score(self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]) -> float:
        score = await self._ask(_listed(self._tasks.score(head)), text, wishes)
        return float(score)

    async def tag(self, text: Text, *, head: str | None = None, **wishes: Unpack[RequestOptions]) -> Matches[Span]:
        return await self._ask(self._tasks.tag(head), text, wishes)

    async def answer(
        self, question: tuple[str, str], *, n_best: int = 1, head: str | None = None, **wishes: Unpack[RequestOptions]
    ) -> Matches[Answer]:
        """Answers to a pair of question and context, the most probable first."""
        return await self._ask(self._tasks.answer(head, n_best=n_best), question, wishes)

    async def predict(self, text: Text, **wishes: Unpack[RequestOptions]) -> Any:
        """Whatever the bundle's task is."""
        found = await self._ask(self._tasks.predict(), text, wishes)
        return float(found) if isinstance(found, np.float32) else found

    async def _ask(self, call: TaskSpec[list[Item]], text: Text, wishes: RequestOptions) -> Item:
        deadline = self._intake.deadline(wishes)
        tokenize = functools.partial(self._intake.tokenize, call, text, wishes)
        try:
            async with asyncio.timeout(_seconds_until(deadline)):
                batch = await asyncio.to_thread(tokenize) if _is_long(text) else tokenize()
                ticket = self._intake.queue(call, batch, deadline)
                arrays = await asyncio.wrap_future(ticket.future)
                return await asyncio.to_thread(ticket.result, arrays) if _is_long(text) else ticket.result(arrays)
        except TimeoutError:
            raise _late() from None


class _PendingRequest(Generic[Item]):
    """One text on its way."""

    def __init__(self, call: TaskSpec[list[Item]], batch: TokenBatch, future: "Future[Arrays]") -> None:
        self.future = future
        self._call, self._batch = call, batch

    def result(self, arrays: Arrays) -> Item:
        return self._call.results(self._batch, arrays)[0]


class _RequestQueue:
    """Takes texts in: tokens first, then the queue."""

    def __init__(self, tokenize: Tokenize, scheduler: Scheduler) -> None:
        self._tokenize, self._scheduler = tokenize, scheduler

    def deadline(self, wishes: RequestOptions) -> float:
        """By `time.monotonic`; infinite where none was wished for."""
        if unknown := wishes.keys() - _WISHES:
            raise TypeError(f"unexpected keyword argument {unknown.pop()!r}; expected {', '.join(_WISHES)}")
        timeout_s = wishes.get("timeout_s")
        if timeout_s is None:
            return math.inf
        check_number("timeout_s", timeout_s)
        if not 0 < timeout_s <= threading.TIMEOUT_MAX:
            raise InputError(f"timeout_s must be a number above 0, got {timeout_s}")
        return time.monotonic() + float(timeout_s)  # a float32 of numpy cannot hold the clock

    def tokenize(self, call: TaskSpec[Any], text: Text, wishes: RequestOptions) -> TokenBatch:
        overflow = wishes.get("overflow")
        policy = call.overflow if overflow is None else overflow
        batch = self._tokenize([text], overflow=policy, stride=wishes.get("stride"))
        call.check(batch)
        return batch

    def queue(self, call: TaskSpec[list[Item]], batch: TokenBatch, deadline: float) -> _PendingRequest[Item]:
        future = self._scheduler.submit(batch, call.outputs, deadline=deadline)
        return _PendingRequest(call, batch, future)


def _seconds_until(deadline: float) -> float | None:
    return None if deadline == math.inf else max(0.0, deadline - time.monotonic())


def _late() -> DeadlineError:
    return DeadlineError("there was no result within timeout_s; give it longer, or serve with more cores")


def _is_long(text: object) -> bool:
    return sum(len(part) for part in (text if isinstance(text, tuple) else (text,)) if isinstance(part, str)) > _SHORT


def _listed(call: TaskSpec[FloatArray]) -> TaskSpec[list[FloatArray]]:
    """For the type checker: the rows of an array are the items of a list."""
    return cast("TaskSpec[list[FloatArray]]", call)
