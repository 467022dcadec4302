"""`AsyncService`: a model for concurrent asyncio tasks, with one text per call."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import Float16Array, FloatArray, Int8Array, UInt8Array
from encort.runtime.engine.future import Future
from encort.runtime.serving.calls import (
    Call,
    EmbedRequestOptions,
    Item,
    MakeCall,
    RequestOptions,
    rows_as_list,
    too_late,
)
from encort.runtime.serving.requests import CallTimes
from encort.runtime.tasks.quantization import EmbeddingPrecision
from encort.runtime.tasks.results import (
    AllEmbeddings,
    Answers,
    Classification,
    Masked,
    Matches,
    Span,
    SparseEmbedding,
    TaggedWord,
)
from encort.runtime.tasks.specs import Tasks
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.tasks.zero_shot import TEMPLATE
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds

_SHORT = 4096
"""Characters that are tokenized in the event loop: handing so few to a thread takes longer."""


class AsyncService:
    """`Service` for asyncio. A cancelled task takes its text out of the queue."""

    def __init__(self, tasks: Tasks, make_call: MakeCall) -> None:
        self._tasks, self._make_call = tasks, make_call

    @overload
    async def embed(
        self, text: Text, *, precision: Literal["float32"] = "float32", **options: Unpack[EmbedRequestOptions]
    ) -> FloatArray: ...

    @overload
    async def embed(
        self, text: Text, *, precision: Literal["float16"], **options: Unpack[EmbedRequestOptions]
    ) -> Float16Array: ...

    @overload
    async def embed(
        self, text: Text, *, precision: Literal["int8", "binary"], **options: Unpack[EmbedRequestOptions]
    ) -> Int8Array: ...

    @overload
    async def embed(
        self, text: Text, *, precision: Literal["uint8", "ubinary"], **options: Unpack[EmbedRequestOptions]
    ) -> UInt8Array: ...

    async def embed(
        self,
        text: Text,
        *,
        prompt: str | Prompt | None = None,
        dimensions: int | None = None,
        precision: EmbeddingPrecision = "float32",
        **options: Unpack[RequestOptions],
    ) -> NDArray[Any]:
        """Return the sentence embedding of a text, `(dimensions,)` float32; see `Model.embed`."""
        spec = self._tasks.embed(prompt=prompt, dimensions=dimensions, precision=precision)
        return await self._request(rows_as_list(spec), text, options)

    async def embed_tokens(
        self, text: Text, *, prompt: str | Prompt | None = None, **options: Unpack[RequestOptions]
    ) -> FloatArray:
        """Return the vectors of the tokens of a text, `(tokens, dim)` float32; see `Model.embed_tokens`."""
        return await self._request(self._tasks.embed_tokens(prompt=prompt), text, options)

    async def embed_sparse(
        self,
        text: Text,
        *,
        prompt: str | Prompt | None = None,
        top_k: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> SparseEmbedding:
        """Return the sparse embedding of a text; see `Model.embed_sparse`."""
        return await self._request(self._tasks.embed_sparse(prompt=prompt, top_k=top_k), text, options)

    async def embed_all(
        self, text: Text, *, prompt: str | Prompt | None = None, **options: Unpack[RequestOptions]
    ) -> AllEmbeddings:
        """Return all embeddings of a text from one run; see `Model.embed_all`."""
        return await self._request(self._tasks.embed_all(prompt=prompt), text, options)

    async def classify(
        self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]
    ) -> Classification:
        """Return the class of a text or pair."""
        return await self._request(self._tasks.classify(head), text, options)

    async def classify_zero_shot(
        self,
        text: str,
        labels: Sequence[str],
        *,
        template: str = TEMPLATE,
        multi_label: bool = False,
        head: str | None = None,
        timeout_s: float | None = None,
    ) -> Classification:
        """Return which of any labels fits a text; see `Model.classify_zero_shot`."""
        spec = self._tasks.classify_zero_shot(head, labels, template=template, multi_label=multi_label)
        return await self._request(spec, text, {"timeout_s": timeout_s})

    async def score(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> float:
        """Return the number that a regression head gives for a text or pair."""
        score = await self._request(rows_as_list(self._tasks.score(head)), text, options)
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

    async def fill(
        self, text: Text, *, top_k: int = 5, head: str | None = None, **options: Unpack[RequestOptions]
    ) -> Matches[Masked]:
        """Return the words that fit the mask tokens of a text; see `Model.fill`."""
        return await self._request(self._tasks.fill(head, top_k=top_k), text, options)

    async def predict(self, text: Text, **options: Unpack[RequestOptions]) -> Any:
        """Return what the bundle's task gives: the result of one of the methods above."""
        result = await self._request(self._tasks.predict(), text, options)
        return float(result) if isinstance(result, np.float32) else result

    async def _request(self, spec: TaskSpec[list[Item]], text: Text, options: RequestOptions) -> Item:
        call: Call[Item] = self._make_call(spec, [text], options)
        return (await _wait(call, [text]))[0]


@dataclass(frozen=True, kw_only=True)
class CallResults(Generic[Item]):
    """Results of one call of `SpecService.run`.

    Attributes:
        items: One result per text.
        batch: The tokens of the texts.
        times: When the call reached each step.
    """

    items: list[Item]
    batch: TokenBatch
    times: CallTimes


class SpecService(AsyncService):
    """An `AsyncService` for callers that make the specs, have many texts, and want to know tokens and times.

    Attributes:
        tasks: The tasks of the bundle, which make the specs.
    """

    def __init__(self, tasks: Tasks, make_call: MakeCall) -> None:
        super().__init__(tasks, make_call)
        self.tasks = tasks

    async def run(
        self, spec: TaskSpec[list[Item]], texts: Sequence[Text | TokenIds], **options: Unpack[RequestOptions]
    ) -> CallResults[Item]:
        """Return the results of texts or of the token ids of texts. The queue takes all of them, or refuses all."""
        call: Call[Item] = self._make_call(spec, texts, options)
        items = await _wait(call, texts)
        return CallResults(items=items, batch=call.batch, times=call.times)


async def _wait(call: Call[Item], texts: Sequence[Text | TokenIds]) -> list[Item]:
    """Return the results of a call. A long text, or several rows, are tokenized and finished in a thread."""
    is_long = call.rows > 1 or any(map(_is_long, texts))
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
