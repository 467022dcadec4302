"""Concurrent callers to micro-batches: one bounded queue in front of an engine.

A caller's text waits as rows of tokens. Whenever a core is free, the row that has waited longest is run with others of
its length, or with those behind it where the graph takes mixed lengths. Nobody's row is run in vain: not for callers
who left, not after its deadline, not twice at a time.
"""

import contextlib
import copy
import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

import numpy as np

from encort.runtime.common.arrays import FloatArray, Int64Array
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import (
    DeadlineError,
    InputError,
    InputTooLongError,
    ModelClosedError,
    OverloadedError,
    WorkerDiedError,
)
from encort.runtime.engine.engine import Engine
from encort.runtime.text.token_batch import TokenBatch, padded

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
        if not 0 <= max_wait_s <= threading.TIMEOUT_MAX:
            raise InputError(f"max_wait_ms must be a number of at least 0, got {1000 * max_wait_s:g}")
        check_whole("queue_tokens", queue_tokens, least=1)
        self._engine, self._max_wait_s, self._queue_tokens = engine, max_wait_s, queue_tokens
        self._changed = threading.Condition()
        self._queues: dict[tuple[Outputs, int], deque[_Row]] = {}
        self._rows: dict[bytes, _Row] = {}
        self._queued_tokens = 0
        self._workers = 0
        self._closed = False

    def submit(self, batch: TokenBatch, outputs: Sequence[str], *, deadline: float = math.inf) -> "Future[Arrays]":
        """Queue one text; cancel the future to give it up.

        Args:
            batch: The text, as one row or as several windows.
            outputs: Of the graph.
            deadline: By `time.monotonic`; afterwards the text is not run any more.

        Returns:
            What `Engine.run` gives for the batch.

        Raises:
            OverloadedError: The queue has no room for it.
            InputTooLongError: It never has: its windows have more tokens than the queue may hold.
            ModelClosedError: The scheduler or its engine was closed.
        """
        rows = [_Row.of(batch, index, tuple(outputs), self._max_wait_s) for index in range(len(batch))]
        request = _Request(len(rows), [self._engine.is_tokenwise(output) for output in outputs], deadline)
        self._engine.check_open()
        with self._changed:
            self._check_open()
            self._check_room({row.key: row.tokens for row in rows if row.key not in self._rows})
            for index, row in enumerate(rows):
                self._join(row).waiting.append((request, index))
            begin = min(sum(map(len, self._queues.values())), self._engine.slots.in_flight - self._workers)
            self._workers += begin
            self._changed.notify_all()
        request.future.add_done_callback(lambda _: self._forget(rows))
        for begun in range(begin):
            try:
                self._engine.submit(self._work)
            except RuntimeError as error:  # closed meanwhile, or no thread can be had
                self._leave_out(begin - begun, error)
                break
        return request.future

    def close(self) -> None:
        """Take nothing more and wait until all that waits has been run; closing twice is fine."""
        if self._engine.is_fork:
            return
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
        queue = self._queues.setdefault(self._key(row), deque())
        queue.append(row)
        self._add_tokens(row.tokens)
        if self._max_wait_s and sum(each.tokens for each in queue) >= self._engine.slots.tokens:
            for each in queue:
                each.due = each.arrived
        return row

    def _key(self, row: "_Row") -> tuple[Outputs, int]:
        """Rows that may share a run wait in one queue."""
        return row.outputs, 0 if self._engine.mixes_lengths else row.tokens

    def _add_tokens(self, tokens: int) -> None:
        self._queued_tokens += tokens
        self._engine.recorder.count(queued_tokens=tokens)

    def _work(self) -> None:
        """Run one micro-batch, and leave the others to the engine's threads, at the end of their line."""
        try:
            while rows := self._take():
                self._run(rows)
                if self._hand_over():
                    return
        except BaseException as error:  # whatever ends a thread must not leave its callers waiting
            with self._changed:
                self._workers -= 1
            self._fail(WorkerDiedError(f"a worker died: {error!r}"), error)

    def _hand_over(self) -> bool:
        """Whether another thread goes on in place of this one, or nothing is left."""
        with self._changed:
            if not self._queues:
                self._workers -= 1
                return True
        try:
            self._engine.submit(self._work)
        except RuntimeError:  # closed meanwhile
            return False
        return True

    def _take(self) -> "list[_Row]":
        """The next micro-batch; an empty one once nothing waits, and then this worker has left."""
        with self._changed:
            while True:
                if not self._queues:
                    self._workers -= 1
                    return []
                now = time.monotonic()
                queue = min(self._queues.values(), key=lambda queue: (queue[0].due > now, queue[0].arrived))
                if queue[0].due > now and not self._closed:
                    self._changed.wait(queue[0].due - now)
                elif rows := self._wanted(queue, now):
                    return rows

    def _wanted(self, queue: "deque[_Row]", now: float) -> "list[_Row]":
        """Rows from the front of a queue, their share left to the other workers; what nobody wants is dropped."""
        slots = self._engine.slots
        share = min(slots.tokens, math.ceil(self._queued_tokens / slots.parallel))
        rows: list[_Row] = []
        tokens = longest = 0
        while queue and (not rows or self._may_join(queue[0].tokens, len(rows), tokens, longest, share)):
            row = queue.popleft()
            self._add_tokens(-row.tokens)
            if row.is_wanted(now):
                row.is_running = True
                rows.append(row)
                tokens, longest = tokens + row.tokens, max(longest, row.tokens)
            else:
                self._drop(row)
            if not queue:
                self._queues.pop(self._key(row), None)
        for row in rows:
            self._engine.recorder.observe("queue_seconds", now - row.arrived)
        return rows

    def _may_join(self, length: int, rows: int, tokens: int, longest: int, share: int) -> bool:
        """Whether a row of that length fits into a run of those rows, and costs less there than in one of its own."""
        together, seconds = (rows + 1, tokens + length, max(longest, length)), self._engine.costs.estimate
        has_room = tokens + length <= share and together[0] * together[2] <= self._engine.slots.max_padded_tokens
        return has_room and seconds(*together) <= seconds(rows, tokens, longest) + seconds(1, length, length)

    def _run(self, rows: "Sequence[_Row]") -> None:
        alone = self._engine.is_idle and not self._queues
        try:
            arrays = self._engine.run_rows(padded([row.inputs for row in rows]), rows[0].outputs, alone=alone)
        except Exception as error:  # theirs alone; the next micro-batch may do
            for row in rows:
                self._finish(row, error)
            return
        tokenwise = [self._engine.is_tokenwise(output) for output in rows[0].outputs]
        for index, row in enumerate(rows):
            found = zip(arrays, tokenwise, strict=True)
            self._finish(row, [array[index, : row.tokens] if by_token else array[index] for array, by_token in found])

    def _finish(self, row: "_Row", found: Arrays | BaseException) -> None:
        with self._changed:
            self._leave(row)
            waiting, row.waiting = row.waiting, []
        for request, index in waiting:
            request.receive(index, found)

    def _forget(self, rows: "Sequence[_Row]") -> None:
        """Take rows out of the queue that nobody waits for any more, so that they leave room."""
        with self._changed:
            for row in (self._rows.get(row.key) for row in rows):
                if row is None or row.is_running or row.is_wanted(-math.inf):
                    continue
                queue = self._queues[self._key(row)]
                queue.remove(row)
                if not queue:
                    del self._queues[self._key(row)]
                self._add_tokens(-row.tokens)
                self._drop(row)

    def _drop(self, row: "_Row") -> None:
        """A row that is not run; those who asked for it and still listen learn why."""
        self._engine.recorder.count(expired=1)
        self._leave(row)
        for request, index in row.waiting:
            request.receive(index, DeadlineError("the deadline passed before the text was run"))

    def _leave(self, row: "_Row") -> None:
        """After a failure another row of the same tokens may be on its way already."""
        if self._rows.get(row.key) is row:
            del self._rows[row.key]
        self._changed.notify_all()

    def _leave_out(self, workers: int, error: RuntimeError) -> None:
        """Workers that could not begin; if there is no other, nobody who waits may wait for them."""
        with self._changed:
            self._workers -= workers
            is_last = self._workers <= 0
        if is_last:
            self._fail(error)

    def _fail(self, error: Exception, cause: BaseException | None = None) -> None:
        """Tell everybody who waits, at once."""
        with self._changed:
            rows = list(self._rows.values())
            self._rows.clear()
            self._queues.clear()
            self._add_tokens(-self._queued_tokens)
            self._changed.notify_all()
        for row in rows:
            for request, index in row.waiting:
                own = copy.copy(error)
                own.__cause__ = cause
                request.receive(index, own)


class _Request:
    """One text that a caller waits for."""

    def __init__(self, rows: int, tokenwise: Sequence[bool], deadline: float) -> None:
        self.future: Future[Arrays] = Future()
        self.deadline = deadline
        self._rows, self._tokenwise = rows, tokenwise
        self._found: dict[int, Arrays] = {}

    def is_wanted(self, now: float) -> bool:
        return not self.future.done() and now < self.deadline

    def receive(self, index: int, found: Arrays | BaseException) -> None:
        """What came out for one row of the text; the last one makes the result."""
        if isinstance(found, BaseException):
            self.give_up(found)
            return
        self._found[index] = found
        if len(self._found) < self._rows:
            return
        try:
            merged = list(self._merged())
        except Exception as error:  # a caller must not be left waiting
            self.give_up(error)
            return
        with contextlib.suppress(InvalidStateError):  # the caller has gone meanwhile
            self.future.set_result(merged)

    def give_up(self, error: BaseException) -> None:
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)

    def _merged(self) -> Iterator[FloatArray]:
        rows = [self._found[index] for index in range(self._rows)]
        for tokenwise, *arrays in zip(self._tokenwise, *rows, strict=True):
            yield np.concatenate(arrays) if tokenwise else np.stack(arrays)


@dataclass(eq=False, kw_only=True)
class _Row:
    """One row of tokens, with all who wait for it; once due, it waits for no others to share its run."""

    key: bytes
    inputs: dict[str, Int64Array]
    outputs: Outputs
    arrived: float
    due: float
    waiting: list[tuple[_Request, int]] = field(default_factory=list)
    is_running: bool = False

    @classmethod
    def of(cls, batch: TokenBatch, index: int, outputs: Outputs, wait_s: float) -> "_Row":
        inputs = batch.rows(np.array([index]))
        key = b"|".join([repr(outputs).encode(), *(array.tobytes() for array in inputs.values())])
        now = time.monotonic()
        return cls(key=key, inputs=inputs, outputs=outputs, arrived=now, due=now + wait_s)

    @property
    def tokens(self) -> int:
        return self.inputs["input_ids"].size

    def is_wanted(self, now: float) -> bool:
        return any(request.is_wanted(now) for request, _ in self.waiting)
