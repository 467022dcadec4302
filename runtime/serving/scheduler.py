"""Concurrent callers to micro-batches: one bounded queue in front of an engine.

A caller's text waits as rows of tokens. When a core is free, a worker takes the oldest row, and other rows that can
share its run. Cancelled, expired and duplicate requests are not run.

The invariant: while rows are queued, a worker will run them, or every request that waits for them has got an error.
"""

import math
import threading
import time
from collections.abc import Sequence

from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import DeadlineError, InputError, ModelClosedError, WorkerDiedError
from encort.runtime.common.forks import new_reentrant_lock
from encort.runtime.engine.engine import POLL_S, Engine
from encort.runtime.engine.future import Future
from encort.runtime.serving.requests import Arrays, CallTimes, Request, WaitingRow
from encort.runtime.serving.row_queue import RowQueue
from encort.runtime.text.token_batch import TokenBatch, pad_rows


class Scheduler:
    """Gathers the texts of any number of threads into micro-batches, the oldest first."""

    def __init__(self, engine: Engine, *, max_wait_s: float, queue_tokens: int) -> None:
        """Start with an empty queue. It uses the engine's threads while there is work, and none otherwise.

        Args:
            engine: Runs the micro-batches.
            max_wait_s: Seconds that a row waits for others to share its run while a core is free.
            queue_tokens: Most tokens that wait.

        Raises:
            InputError: An option is out of its range.
        """
        if not 0 <= max_wait_s <= threading.TIMEOUT_MAX:
            raise InputError(f"max_wait_ms must be a number of at least 0, got {1000 * max_wait_s:g}")
        check_whole("queue_tokens", queue_tokens, least=1)
        self._engine, self._max_wait_s = engine, max_wait_s
        self._lock = new_reentrant_lock()
        self._changed = threading.Condition(self._lock)
        self._queue = RowQueue(engine, max_tokens=queue_tokens)
        self._workers: set[object] = set()
        self._closed = False

    def check_estimate(self, tokens: int) -> None:
        """Refuse texts before their tokenization; see `RowQueue.check_estimate`.

        Raises:
            OverloadedError: The queue has no room for so many tokens now.
        """
        with self._lock:
            self._queue.check_estimate(tokens)

    def submit(
        self,
        batch: TokenBatch,
        outputs: Sequence[str],
        *,
        deadline: float = math.inf,
        times: CallTimes | None = None,
    ) -> Future[Arrays]:
        """Queue the rows of one call, all or none of them. Cancel the future to take them back.

        Args:
            batch: One or several texts, each as one row or as several windows.
            outputs: Names of the graph's outputs.
            deadline: Time by `time.monotonic` after which the text is not run any more.
            times: Gets the times of the run.

        Returns:
            The future result of `Engine.run` for the batch.

        Raises:
            OverloadedError: The queue has no room for it now.
            InputTooLongError: Its windows have more tokens than the queue can hold.
            ModelClosedError: The scheduler or its engine was closed.
        """
        rows = [WaitingRow.of(batch, index, tuple(outputs), max_wait_s=self._max_wait_s) for index in range(len(batch))]
        tokenwise = [self._engine.variant.is_tokenwise(output) for output in outputs]
        request = Request(len(rows), tokenwise, deadline, times)
        request.future.add_done_callback(lambda: self._remove_unwanted(rows))
        self._engine.check_open()
        try:
            self._enqueue(request, rows)
            self._start_workers()
        except BaseException:  # an interrupt too: the rows lose their caller, the other rows keep their workers
            request.future.cancel()
            self._start_workers()
            raise
        return request.future

    def close(self) -> None:
        """Take no more texts and wait until all queued texts have been run. Closing twice is fine."""
        if self._engine.is_fork:
            return
        with self._lock:
            self._closed = True
            self._changed.notify_all()
        while not self._queue.knows_none:
            time.sleep(POLL_S)

    def _enqueue(self, request: Request, rows: Sequence[WaitingRow]) -> None:
        with self._lock:
            if self._closed:
                raise ModelClosedError("this service was closed; begin another with model.serving()")
            self._queue.check_room(rows)
            # Rows of like lengths share runs with little padding.
            for index in sorted(range(len(rows)), key=lambda index: -rows[index].tokens):
                self._queue.add(rows[index], request, index)
            self._changed.notify_all()

    def _start_workers(self) -> None:
        """Start one more worker per queued row, up to the engine's slots: running workers are busy with other rows."""
        with self._lock:
            workers = min(len(self._queue), self._engine.slots.in_flight - len(self._workers))
        try:
            for _ in range(workers):
                self._start_worker()
        except RuntimeError as error:  # the engine was closed meanwhile
            if not self._workers:
                self._fail_all(error)

    def _start_worker(self) -> None:
        """Start one worker, if a slot is free. A worker is counted by a token of its own."""
        worker = object()
        try:
            with self._lock:
                if len(self._workers) == self._engine.slots.in_flight or self._queue.is_empty:
                    return
                self._workers.add(worker)
            self._engine.submit(self._work, worker)
        except BaseException:
            self._remove_worker(worker)
            raise

    def _remove_worker(self, worker: object) -> None:
        with self._lock:
            self._workers.discard(worker)

    def _work(self, worker: object) -> None:
        """Run micro-batches as one worker, until it hands over."""
        try:
            is_done = False
            while not is_done:
                self._run(self._take())
                self._start_workers()  # for rows that were held back until this run
                is_done = self._hand_over(worker)
        except BaseException as error:  # nobody may wait for a thread that has ended
            self._remove_worker(worker)
            self._fail_all(WorkerDiedError(f"a worker died: {error!r}"), error)

    def _hand_over(self, worker: object) -> bool:
        """Continue in a new task behind all tasks of the engine, so that its other callers get their turn.

        Returns:
            Whether this task is done. It goes on if the engine was closed and takes no new tasks.
        """
        with self._lock:
            if self._queue.is_empty:
                self._remove_worker(worker)
                return True
        try:
            self._engine.submit(self._work, worker)
        except RuntimeError:
            return False
        return True

    def _take(self) -> list[WaitingRow]:
        """Wait until rows are due and take a micro-batch; empty if no row is left."""
        rows: list[WaitingRow] = []
        dropped: list[WaitingRow] = []
        with self._lock:
            while not self._queue.is_empty and not rows:
                now = time.monotonic()
                wait_s = 0.0 if self._closed else self._queue.seconds_until_due(now)
                if wait_s:
                    self._changed.wait(wait_s)
                else:
                    rows, unwanted = self._queue.take(now)
                    dropped += unwanted
            self._changed.notify_all()
        self._expire(dropped)
        return rows

    def _run(self, rows: Sequence[WaitingRow]) -> None:
        """Run a micro-batch and give everybody who waits for one of its rows the result or the error."""
        if not rows:
            return
        alone = self._engine.is_idle and self._queue.is_empty
        outputs = rows[0].outputs
        try:
            arrays = self._engine.run_micro_batch(pad_rows([row.inputs for row in rows]), outputs, alone=alone)
        except Exception as error:  # of these rows only; the next micro-batch may succeed
            for row in rows:
                self._finish(row, error)
            return
        tokenwise = [self._engine.variant.is_tokenwise(output) for output in outputs]
        for index, row in enumerate(rows):
            self._finish(
                row,
                [
                    array[index, : row.tokens] if is_tokenwise else array[index]
                    for array, is_tokenwise in zip(arrays, tokenwise, strict=True)
                ],
            )

    def _finish(self, row: WaitingRow, result: Arrays | BaseException) -> None:
        with self._lock:
            self._queue.forget(row)
        row.deliver(result)

    def _remove_unwanted(self, rows: Sequence[WaitingRow]) -> None:
        """Take rows out of the queue that no request waits for any more, so that they leave room."""
        with self._lock:
            removed = self._queue.remove_unwanted(rows)
            self._changed.notify_all()
        self._expire(removed)

    def _expire(self, rows: Sequence[WaitingRow]) -> None:
        """Count rows that were dropped. A caller that still waits learns that the deadline has passed."""
        for row in rows:
            self._engine.recorder.count(expired=1)
            row.deliver(DeadlineError("the deadline passed before the text was run"))

    def _fail_all(self, error: Exception, cause: BaseException | None = None) -> None:
        """Give the error to every request that waits, at once."""
        with self._lock:
            rows = self._queue.clear()
            self._changed.notify_all()
        for row in rows:
            row.fail(error, cause)
