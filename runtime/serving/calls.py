"""One call of a service: its texts are tokenized and queued, until its caller gives up."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypedDict, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.checks import check_number
from encort.runtime.common.errors import DeadlineError, InputError
from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays, CallTimes
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.tasks.task_spec import Inputs, TaskSpec
from encort.runtime.text.prompts import Prompt
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.windows import Overflow

Item = TypeVar("Item")
_CHARACTERS_PER_TOKEN = 4
"""About as many in English. Other languages have fewer, and the exact check after tokenization counts them."""
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


class EmbedRequestOptions(RequestOptions, total=False):
    """Options of `Service.embed`, except for the precision; see `Model.embed`."""

    prompt: str | Prompt | None
    dimensions: int | None


class Call(Generic[Item]):
    """One call of a service, from its start to `give_up`.

    Attributes:
        times: When the call reached each step.
    """

    def __init__(
        self,
        tokenize: Tokenize,
        scheduler: Scheduler,
        max_length: int,
        spec: TaskSpec[list[Item]],
        texts: Sequence[Text | TokenIds],
        options: RequestOptions,
    ) -> None:
        """Check the options and, by an estimate, the room in the queue. The time of `timeout_s` begins.

        A full queue refuses here, so that refusals cost no tokenization and do not wait for that of other calls.

        Args:
            tokenize: Tokenizes a list of texts, with the options of `TokenizerPool`.
            scheduler: Runs the texts.
            max_length: Most tokens of one row.
            spec: Task of the call.
            texts: Texts and pairs, or the token ids of single texts.
            options: Options of the caller.

        Raises:
            TypeError: There is an unknown option.
            InputError: `timeout_s` is out of its range.
            OverloadedError: The queue is too full.
        """
        self._deadline = _deadline(options)
        scheduler.check_estimate(spec.rows_per_text * sum(min(max_length, _estimated_tokens(text)) for text in texts))
        self._tokenize, self._scheduler, self._spec = tokenize, scheduler, spec
        self._texts, self._options = texts, options
        self.times = CallTimes()
        self._batch: TokenBatch | None = None
        self._future: Future[Arrays] | None = None
        self._is_given_up = False

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0; None without a deadline."""
        return None if self._deadline == math.inf else max(0.0, self._deadline - time.monotonic())

    @property
    def rows(self) -> int:
        """Rows of the graph that the texts make, without windows."""
        return self._spec.rows_per_text * len(self._texts)

    def start(self) -> Future[Arrays]:
        """Tokenize and queue the texts; see `Scheduler.submit`. A long text stops when nobody waits for it any more.

        Raises:
            DeadlineError: The deadline passed, or the caller gave up.
        """
        self.times.begun = time.monotonic()
        overflow = self._options.get("overflow")
        policy = self._spec.overflow if overflow is None else overflow
        self._batch = self._tokenize(
            self._spec.inputs(cast("Inputs", self._texts)),
            overflow=policy,
            stride=self._options.get("stride"),
            prompt=self._spec.prompt,
            check=self._check,
        )
        self._spec.check(self._batch)
        rows = self._spec.rows(self._batch)
        self._future = self._scheduler.submit(rows, self._spec.outputs, deadline=self._deadline, times=self.times)
        if self._is_given_up:  # in another thread, which has not seen the future
            self._future.cancel()
        return self._future

    @property
    def batch(self) -> TokenBatch:
        """The tokens of the texts, after `start`."""
        assert self._batch is not None, "the call was started"
        return self._batch

    def finish(self, arrays: Arrays) -> list[Item]:
        """Return one result per text from the outputs of their run."""
        return self._spec.finish(self.batch, arrays)

    def give_up(self) -> None:
        """Stop all work on the texts. A call that has its result is not changed."""
        self._is_given_up = True
        if self._future is not None:
            self._future.cancel()

    def _check(self) -> None:
        if self._is_given_up or time.monotonic() >= self._deadline:
            raise too_late()


MakeCall = Callable[[TaskSpec[Any], Sequence[Text | TokenIds], RequestOptions], Call[Any]]


def rows_as_list(spec: TaskSpec[NDArray[Any]]) -> TaskSpec[list[NDArray[Any]]]:
    """Tell the type checker that an array is a list of its rows."""
    return cast("TaskSpec[list[NDArray[Any]]]", spec)


def too_late() -> DeadlineError:
    """Return the error of a call without a result in time."""
    return DeadlineError("there was no result within timeout_s; give it longer, or serve with more cores")


def _estimated_tokens(text: object) -> int:
    """Return about how many tokens a text, a pair or token ids have; 1 for other values, which are refused later."""
    if isinstance(text, str):
        return 1 + len(text) // _CHARACTERS_PER_TOKEN
    if isinstance(text, tuple):
        return sum(map(_estimated_tokens, text))
    if isinstance(text, np.ndarray):
        return text.size
    return len(text) if isinstance(text, list) else 1


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
