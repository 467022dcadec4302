"""Concurrent callers to micro-batches: one bounded queue in front of an engine.

A caller's text waits as rows of tokens. Whenever a core is free, the longest waiting row is run with others of its
length. Nobody's row is run in vain: not for callers who left, not after its deadline, not twice at a time.
"""

import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from encort.runtime.engine import Engine
from encort.runtime.errors import (
    DeadlineError,
    InputError,
    InputTooLongError,
    ModelClosedError,
    OverloadedError,
    WorkerDiedError,
)
from encort.runtime.planner import TOKENS_PER_RUN
from encort.runtime.session import FloatArray
from encort.runtime.tokens import Int64Array, TokenBatch

Outputs = tuple[str, ...]
Arrays = list[FloatArray]


class Scheduler:
    """Gathers the texts of any number of threads into micro-batches, the oldest first."""

    def __init__(self, engine: Engine, *, max_wait_s: float, queue_tokens: int) -> None:
        """Begin an empty queue; it takes the engine's threads when there is work, and none otherwise.

        Args:
            max_wait_s: How long a row waits for others to share its run while a core is free.
            queue_tokens: Most tokens that wait.
        """
        if not max_wait_s >= 0:
            raise InputError(f"max_wait_ms must be at least 0, got {1000 * max_wait_s:g}")
        if queue_tokens < 1:
            raise InputError(f"queue_tokens must be at least 1, got {queue_tokens}")
        self._engine, self._max_wait_s, self._queue_tokens = engine, max_wait_s, queue_tokens
        self._changed = threading.Condition()
        self._queues: dict[tuple[Outputs, int], deque[_Row]] = {}
        self._rows: dict[bytes, _Row] = {}
        self._queued_tokens = 0
        self._workers = 0
        self._closed = False

    def submit(self, batch: TokenBatch, outputs: Sequence[str], *, deadline: float | None = None) -> "Future[Arrays]":
        """Queue one text; cancel the future to give it up.

        Args:
            batch: The text, as one row or as several windows.
            outputs: Of the graph.
            deadline: By `time.monotonic`; afterwards it is not run any more.

        Returns:
            What `Engine.run` gives for the batch.

        Raises:
            OverloadedError: The queue has no room for it.
            ModelClosedError: The scheduler or its engine was closed.
        """
        rows = [_Row.of(batch, index, tuple(outputs)) for index in range(len(batch))]
        request = _Request(len(rows), [self._engine.is_tokenwise(output) for output in outputs], deadline)
        with self._changed:
            self._check_open()
            self._engine.check_open()
            self._check_room({row.key: row.tokens for row in rows if row.key not in self._rows})
            for index, row in enumerate(rows):
                self._join(row).waiting.append((request, index))
            begin = min(sum(map(len, self._queues.values())), self._engine.threads - self._workers)
            self._workers += begin
            self._changed.notify_all()
        request.future.add_done_callback(lambda _: self._forget(rows))
        try:
            for _ in range(begin):
                self._engine.submit(self._work)
        except ModelClosedError as error:
            self._fail(error)
        return request.future

    def close(self) -> None:
        """Take nothing more and wait until all that waits has been run; closing twice is fine."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._rows)

    def _check_open(self) -> None:
        if self._closed:
            raise ModelClosedError("this service was closed; begin another with model.serving()")

    def _check_room(self, new: Mapping[bytes, int]) -> None:
        tokens = sum(new.values())
        if self._queued_tokens + tokens <= self._queue_tokens:
            return
        if tokens > self._queue_tokens:
            raise InputTooLongError(f"a text of {tokens} tokens does not fit into queue_tokens={self._queue_tokens}")
        self._engine.recorder.count(overloads=1)
        raise OverloadedError(
            f"{self._queued_tokens} tokens wait, and {tokens} more would pass queue_tokens={self._queue_tokens}; "
            "try again later, send less, or serve with more cores"
        )

    def _join(self, row: "_Row") -> "_Row":
        """The same row if it is on its way already, else this one at the end of its queue."""
        if known := self._rows.get(row.key):
            self._engine.recorder.count(shared=1)
            return known
        self._rows[row.key] = row
        self._queues.setdefault(row.queue, deque()).append(row)
        self._add_tokens(row.tokens)
        return row

    def _add_tokens(self, tokens: int) -> None:
        self._queued_tokens += tokens
        self._engine.recorder.count(queued_tokens=tokens)

    def _work(self) -> None:
        """Run micro-batches in one of the engine's threads until none is left."""
        try:
            while rows := self._take():
                self._run(rows)
        except BaseException as error:  # whatever ends a thread must not leave its callers waiting
            with self._changed:
                self._workers -= 1
            self._fail(error)

    def _take(self) -> "list[_Row]":
        """The next micro-batch; an empty one once nothing waits, and then this worker has left."""
        with self._changed:
            while True:
                now = time.monotonic()
                ripe = [queue for queue in self._queues.values() if self._is_ripe(queue, now)]
                if ripe:
                    rows = self._wanted(min(ripe, key=lambda queue: queue[0].arrived), now)
                    if rows:
                        return rows
                elif self._queues:
                    oldest = min(queue[0].arrived for queue in self._queues.values())
                    self._changed.wait(max(0.0, oldest + self._max_wait_s - now))
                else:
                    self._workers -= 1
                    return []

    def _is_ripe(self, queue: "deque[_Row]", now: float) -> bool:
        row = queue[0]
        return self._closed or now >= row.arrived + self._max_wait_s or len(queue) * row.tokens >= TOKENS_PER_RUN

    def _wanted(self, queue: "deque[_Row]", now: float) -> "list[_Row]":
        """Take rows from the front of a queue, leaving their share to the other workers, and drop what nobody wants."""
        share = min(TOKENS_PER_RUN, math.ceil(self._queued_tokens / self._engine.threads))
        rows: list[_Row] = []
        while queue and (not rows or (len(rows) + 1) * queue[0].tokens <= share):
            row = queue.popleft()
            self._add_tokens(-row.tokens)
            if row.is_wanted(now):
                row.is_running = True
                rows.append(row)
            else:
                self._drop(row)
            if not queue:
                self._queues.pop(row.queue, None)
        for row in rows:
            self._engine.recorder.observe("queue_seconds", now - row.arrived)
        return rows

    def _run(self, rows: "Sequence[_Row]") -> None:
        names = rows[0].inputs
        inputs = {name: np.concatenate([row.inputs[name] for row in rows]) for name in names}
        alone = self._engine.is_idle and not self._queues
        try:
            arrays = self._engine.run_rows(inputs, rows[0].outputs, alone=alone)
        except Exception as error:  # theirs alone; the next micro-batch may do
            for row in rows:
                self._finish(row, error)
            return
        for index, row in enumerate(rows):
            self._finish(row, [array[index] for array in arrays])

    def _finish(self, row: "_Row", found: Arrays | BaseException) -> None:
        with self._changed:
            self._rows.pop(row.key, None)
            waiting, row.waiting = row.waiting, []
            self._changed.notify_all()
        for request, index in waiting:
            request.receive(index, found)

    def _forget(self, rows: "Sequence[_Row]") -> None:
        """Take rows out of the queue that nobody waits for any more, so that they leave room."""
        with self._changed:
            for row in (self._rows.get(row.key) for row in rows):
                if row is None or row.is_running or row.is_wanted(-math.inf):
                    continue
                queue = self._queues[row.queue]
                queue.remove(row)
                if not queue:
                    del self._queues[row.queue]
                self._add_tokens(-row.tokens)
                self._drop(row)

    def _drop(self, row: "_Row") -> None:
        """A row that is not run; those who asked for it and still listen learn why."""
        self._engine.recorder.count(expired=1)
        self._rows.pop(row.key, None)
        for request, index in row.waiting:
            request.receive(index, DeadlineError("the deadline passed before the text was run"))
        self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """Tell everybody who waits, at once."""
        with self._changed:
            rows = list(self._rows.values())
            self._rows.clear()
            self._queues.clear()
            self._add_tokens(-self._queued_tokens)
            self._changed.notify_all()
        for row in rows:
            for request, index in row.waiting:
                died = WorkerDiedError(f"a worker died: {error!r}")
                died.__cause__ = error
                request.receive(index, died)


class _Request:
    """One text that a caller waits for."""

    def __init__(self, rows: int, tokenwise: Sequence[bool], deadline: float | None) -> None:
        self.future: Future[Arrays] = Future()
        self.deadline = math.inf if deadline is None else deadline
        self._rows, self._tokenwise = rows, tokenwise
        self._found: dict[int, Arrays] = {}

    def is_wanted(self, now: float) -> bool:
        return not self.future.done() and now < self.deadline

    def receive(self, index: int, found: Arrays | BaseException) -> None:
        """What came out for one row of the text; the last one makes the result."""
        with contextlib.suppress(InvalidStateError):  # the caller may have gone meanwhile
            if isinstance(found, BaseException):
                self.future.set_exception(found)
                return
            self._found[index] = found
            if len(self._found) == self._rows:
                self.future.set_result(list(self._merged()))

    def _merged(self) -> Iterator[FloatArray]:
        rows = [self._found[index] for index in range(self._rows)]
        for tokenwise, *arrays in zip(self._tokenwise, *rows, strict=True):
            yield np.concatenate(arrays) if tokenwise else np.stack(arrays)


@dataclass(eq=False, kw_only=True)
class _Row:
    """One row of tokens, with all who wait for it."""

    key: bytes
    inputs: dict[str, Int64Array]
    outputs: Outputs
    arrived: float
    waiting: list[tuple[_Request, int]] = field(default_factory=list)
    is_running: bool = False

    @classmethod
    def of(cls, batch: TokenBatch, index: int, outputs: Outputs) -> "_Row":
        inputs = batch.rows(np.array([index]))
        key = b"|".join([repr(outputs).encode(), *(array.tobytes() for array in inputs.values())])
        return cls(key=key, inputs=inputs, outputs=outputs, arrived=time.monotonic())

    @property
    def tokens(self) -> int:
        return self.inputs["input_ids"].size

    @property
    def queue(self) -> tuple[Outputs, int]:
        return self.outputs, self.tokens

    def is_wanted(self, now: float) -> bool:
        return any(request.is_wanted(now) for request, _ in self.waiting)
