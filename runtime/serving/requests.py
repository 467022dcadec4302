"""One text that a caller waits for (`Request`), and the rows of tokens that requests share (`WaitingRow`)."""

import copy
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.engine.future import Future
from encort.runtime.text.token_batch import TokenBatch

Arrays = list[FloatArray]
"""One array per output of a graph."""
Outputs = tuple[str, ...]
"""Names of a graph's outputs."""


@dataclass(kw_only=True)
class CallTimes:
    """Times of one call, by `time.monotonic`; 0 for a step that it has not reached.

    Attributes:
        begun: When tokenization began.
        queued: When the tokens were put into the queue.
        started: When a worker took the first row.
        ended: When the last row had its result.
    """

    begun: float = 0.0
    queued: float = 0.0
    started: float = 0.0
    ended: float = 0.0

    @property
    def tokenization_s(self) -> float:
        """Seconds of tokenization."""
        return max(0.0, self.queued - self.begun)

    @property
    def queue_s(self) -> float:
        """Seconds until the first row was run."""
        return max(0.0, self.started - self.queued)

    @property
    def run_s(self) -> float:
        """Seconds from the start of the first row's run to the end of the last one's."""
        return max(0.0, self.ended - self.started)


class Request:
    """One text that a caller waits for, as one row of tokens or as several windows.

    Attributes:
        future: The caller's; its result is what `Engine.run` gives for the text.
        rows: Number of rows.
        times: When its rows were run.
        held: Rows that the queue holds back until earlier rows of the request were run.
        active: Number of rows of the request that are queued or running.
    """

    def __init__(self, rows: int, tokenwise: Sequence[bool], deadline: float, times: CallTimes | None = None) -> None:
        """Wait for a number of rows.

        Args:
            rows: Number of rows.
            tokenwise: For each output, whether it has one row per token.
            deadline: Time by `time.monotonic` after which the result is not wanted.
            times: Gets the times of the run.
        """
        self.future: Future[Arrays] = Future()
        self.times = CallTimes() if times is None else times
        self.times.queued = time.monotonic()
        self.rows, self._tokenwise, self._deadline = rows, tokenwise, deadline
        self._results: dict[int, Arrays] = {}
        self.held: deque[WaitingRow] = deque()
        self.active = 0

    def is_waiting(self, now: float) -> bool:
        """Return whether the caller still waits and the deadline has not passed."""
        return not self.future.done() and now < self._deadline

    def receive(self, index: int, result: Arrays | BaseException, *, started: float = math.inf) -> None:
        """Take the result or the error of one row. The last result completes the future.

        Args:
            index: Number of the row.
            result: Its outputs, or why there are none.
            started: When its run started, by `time.monotonic`. It may have started for another request.
        """
        self.times.ended = time.monotonic()
        self.times.started = min(self.times.started or math.inf, max(self.times.queued, started), self.times.ended)
        if isinstance(result, BaseException):
            self.future.set_exception(result)
            return
        self._results[index] = result
        if len(self._results) < self.rows:
            return
        try:
            merged = list(self._merged())
        except Exception as error:  # the caller must not be left waiting
            self.future.set_exception(error)
            return
        self.future.set_result(merged)

    def _merged(self) -> Iterator[FloatArray]:
        rows = [self._results[index] for index in range(self.rows)]
        for tokenwise, *arrays in zip(self._tokenwise, *rows, strict=True):
            yield np.concatenate(arrays) if tokenwise else np.stack(arrays)


@dataclass(eq=False, kw_only=True)
class WaitingRow:
    """One row of tokens that waits for a run.

    Attributes:
        key: Equal for rows with equal tokens and outputs.
        inputs: Inputs of the graph, each `(1, tokens)` int64.
        outputs: Outputs of the graph that are wanted.
        arrived: Time of arrival, by `time.monotonic`.
        due: Time from which on the row waits no longer for others to share its run.
        requests: All requests that wait for the row, each with the number of the row in it.
        is_held: Whether the row is held back, see `Request.held`.
        is_running: Whether a worker has taken the row.
        started: When a worker took it, by `time.monotonic`.
    """

    key: bytes
    inputs: dict[str, Int64Array]
    outputs: Outputs
    arrived: float
    due: float
    requests: list[tuple[Request, int]] = field(default_factory=list)
    is_held: bool = False
    is_running: bool = False
    started: float = math.inf

    @classmethod
    def of(cls, batch: TokenBatch, index: int, outputs: Outputs, *, max_wait_s: float) -> "WaitingRow":
        """Make a row that arrives now, of one row of a batch."""
        inputs = batch.rows(np.array([index]))
        key = b"|".join([repr(outputs).encode(), *(array.tobytes() for array in inputs.values())])
        now = time.monotonic()
        return cls(key=key, inputs=inputs, outputs=outputs, arrived=now, due=now + max_wait_s)

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return self.inputs["input_ids"].size

    def is_wanted(self, now: float) -> bool:
        """Return whether a request still waits for the row."""
        return any(request.is_waiting(now) for request, _ in self.requests)

    def fail(self, error: Exception, cause: BaseException | None) -> None:
        """Give every request that waits for the row a copy of the error, so that each caller has a traceback alone."""
        for request, index in self.requests:
            own = copy.copy(error)
            own.__cause__ = cause
            request.receive(index, own)

    def deliver(self, result: Arrays | BaseException) -> None:
        """Give the result or the error to every request that waits for the row."""
        requests, self.requests = self.requests, []
        for request, index in requests:
            request.receive(index, result, started=self.started)
