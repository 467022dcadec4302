"""`Service`: a model for concurrent threads, with one text per call; and the context that opens it."""

import asyncio
import functools
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import Float16Array, FloatArray, Int8Array, UInt8Array
from encort.runtime.serving.async_service import AsyncService, SpecService
from encort.runtime.serving.calls import (
    Call,
    EmbedRequestOptions,
    Item,
    MakeCall,
    RequestOptions,
    Tokenize,
    rows_as_list,
    too_late,
)
from encort.runtime.serving.scheduler import Scheduler
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
from encort.runtime.text.token_batch import Text


class ServiceContext:
    """Context of a service, from `Model.serving`: `with` gives a `Service`, `async with` gives an `AsyncService`.

    Leaving the block refuses new texts and waits until the accepted texts are done.
    """

    def __init__(self, tokenize: Tokenize, tasks: Tasks, scheduler: Scheduler, max_length: int) -> None:
        """Connect a model's tokenizer and tasks with a scheduler, for rows of at most `max_length` tokens."""
        self._tasks, self._scheduler = tasks, scheduler
        self._make_call = functools.partial(Call, tokenize, scheduler, max_length)

    def __enter__(self) -> "Service":
        return Service(self._tasks, self._make_call)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._scheduler.close()

    async def __aenter__(self) -> "AsyncService":
        return SpecService(self._tasks, self._make_call)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._scheduler.close)


class Service:
    """Results for one text or pair per call, for any number of threads. They equal the results of `Model`.

    Every call raises the errors of the same method of `Model`, `OverloadedError` when the queue is full, and
    `DeadlineError` when there is no result within `timeout_s`.
    """

    def __init__(self, tasks: Tasks, make_call: MakeCall) -> None:
        self._tasks, self._make_call = tasks, make_call

    @overload
    def embed(
        self, text: Text, *, precision: Literal["float32"] = "float32", **options: Unpack[EmbedRequestOptions]
    ) -> FloatArray: ...

    @overload
    def embed(
        self, text: Text, *, precision: Literal["float16"], **options: Unpack[EmbedRequestOptions]
    ) -> Float16Array: ...

    @overload
    def embed(
        self, text: Text, *, precision: Literal["int8", "binary"], **options: Unpack[EmbedRequestOptions]
    ) -> Int8Array: ...

    @overload
    def embed(
        self, text: Text, *, precision: Literal["uint8", "ubinary"], **options: Unpack[EmbedRequestOptions]
    ) -> UInt8Array: ...

    def embed(
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
        return self._request(rows_as_list(spec), text, options)

    def embed_tokens(
        self, text: Text, *, prompt: str | Prompt | None = None, **options: Unpack[RequestOptions]
    ) -> FloatArray:
        """Return the vectors of the tokens of a text, `(tokens, dim)` float32; see `Model.embed_tokens`."""
        return self._request(self._tasks.embed_tokens(prompt=prompt), text, options)

    def embed_sparse(
        self,
        text: Text,
        *,
        prompt: str | Prompt | None = None,
        top_k: int | None = None,
        **options: Unpack[RequestOptions],
    ) -> SparseEmbedding:
        """Return the sparse embedding of a text; see `Model.embed_sparse`."""
        return self._request(self._tasks.embed_sparse(prompt=prompt, top_k=top_k), text, options)

    def embed_all(
        self, text: Text, *, prompt: str | Prompt | None = None, **options: Unpack[RequestOptions]
    ) -> AllEmbeddings:
        """Return all embeddings of a text from one run; see `Model.embed_all`."""
        return self._request(self._tasks.embed_all(prompt=prompt), text, options)

    def classify(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> Classification:
        """Return the class of a text or pair."""
        return self._request(self._tasks.classify(head), text, options)

    def classify_zero_shot(
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
        return self._request(spec, text, {"timeout_s": timeout_s})

    def score(self, text: Text, *, head: str | None = None, **options: Unpack[RequestOptions]) -> float:
        """Return the number that a regression head gives for a text or pair."""
        score = self._request(rows_as_list(self._tasks.score(head)), text, options)
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

    def fill(
        self, text: Text, *, top_k: int = 5, head: str | None = None, **options: Unpack[RequestOptions]
    ) -> Matches[Masked]:
        """Return the words that fit the mask tokens of a text; see `Model.fill`."""
        return self._request(self._tasks.fill(head, top_k=top_k), text, options)

    def predict(self, text: Text, **options: Unpack[RequestOptions]) -> Any:
        """Return what the bundle's task gives: the result of one of the methods above."""
        result = self._request(self._tasks.predict(), text, options)
        return float(result) if isinstance(result, np.float32) else result

    def _request(self, spec: TaskSpec[list[Item]], text: Text, options: RequestOptions) -> Item:
        call: Call[Item] = self._make_call(spec, [text], options)
        try:
            return call.finish(call.start().result(call.seconds_left))[0]
        except TimeoutError:
            raise too_late() from None
        finally:
            call.give_up()
