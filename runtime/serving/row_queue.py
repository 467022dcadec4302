"""The rows that wait for a run: one queue for each kind of row, bounded in tokens, and no row twice.

A request with many rows, the windows of a long text, has only as many of them in the queue or running as there are
workers, and holds the others back. When one was run, the next one goes to the end of the queue, so that the texts of
other callers get their turn in between. While such callers are there, one worker is left to them.

The invariants: a row is known from its arrival until it was run or dropped; until a worker takes it, it is queued or
held back; a request that holds rows back has a row that is queued or running.
"""

import math
import time
from collections.abc import Iterable

from encort.runtime.common.errors import InputTooLongError, OverloadedError
from encort.runtime.engine.engine import Engine
from encort.runtime.serving.requests import Outputs, Request, WaitingRow
from encort.runtime.serving.waiting_rows import WaitingRows

_RECENTLY_S = 1.0
"""Seconds since the last text of one row in which more such texts are expected."""


class RowQueue:
    """Rows that wait, the oldest first. It has no lock: the scheduler calls it with its own lock held."""

    def __init__(self, engine: Engine, *, max_tokens: int) -> None:
        """Start empty.

        Args:
            engine: Its slots and costs decide which rows share a run; its recorder counts.
            max_tokens: Most tokens that wait.
        """
        self._engine, self._max_tokens = engine, max_tokens
        self._queues: dict[tuple[Outputs, int], WaitingRows] = {}
        self._known: dict[bytes, WaitingRow] = {}
        self._tokens = 0
        self._last_single = -math.inf

    def __len__(self) -> int:
        """Return the number of queued rows."""
        return sum(len(queue.rows) for queue in self._queues.values())

    @property
    def is_empty(self) -> bool:
        """Whether no row is queued."""
        return not self._queues

    @property
    def knows_none(self) -> bool:
        """Whether no row is queued or running."""
        return not self._known

    def check_room(self, rows: Iterable[WaitingRow]) -> None:
        """Refuse rows that the queue cannot hold. Rows that are known already need no room.

        Raises:
            InputTooLongError: Even the empty queue could not hold them.
            OverloadedError: The queue is too full.
        """
        tokens = sum({row.key: row.tokens for row in rows if row.key not in self._known}.values())
        if self._tokens + tokens <= self._max_tokens:
            return
        if tokens > self._max_tokens:
            raise InputTooLongError(f"a text of {tokens} tokens does not fit into queue_tokens={self._max_tokens}")
        raise self._overloaded(str(tokens))

    def check_estimate(self, tokens: int) -> None:
        """Refuse texts before their tokenization, by their estimated tokens. An empty queue refuses none.

        Texts that even the empty queue could not hold are left to `check_room`, which knows their tokens.

        Raises:
            OverloadedError: The queue is too full.
        """
        if self._max_tokens - self._tokens < tokens <= self._max_tokens:
            raise self._overloaded(f"about {tokens}")

    def _overloaded(self, tokens: str) -> OverloadedError:
        """Count a refusal and return its error, for the number of tokens that have no room."""
        self._engine.recorder.count(overloads=1)
        return OverloadedError(
            f"{self._tokens} tokens wait, and {tokens} more would pass queue_tokens={self._max_tokens}; "
            "try again later, send less, or serve with more cores"
        )

    def add(self, row: WaitingRow, request: Request, index: int) -> None:
        """Queue a row for a request, or share the known row with the same tokens."""
        known = self._known.get(row.key)
        try:
            if known is None:
                row.is_held = True
                self._known[row.key] = row
                self._count_tokens(row.tokens)
            else:
                self._engine.recorder.count(shared=1)
            shared = known or row
            shared.requests.append((request, index))
            if shared.is_held:
                request.held.append(shared)
            else:
                request.active += 1
            if request.rows == 1:
                self._last_single = row.arrived
            self._release(request, row.arrived)
        except BaseException:
            self._restore()
            raise

    def _release(self, request: Request, now: float) -> None:
        """Queue rows that a request holds back, as many as its share of the queue allows."""
        while request.held and request.active < self._most_active(request.held[0], now):
            row = request.held.popleft()
            if row.is_held:
                self._enqueue(row, now)

    def _most_active(self, row: WaitingRow, now: float) -> int:
        """Return the number of rows that keep the workers busy which one request may use."""
        slots, others = self._engine.slots, now < self._last_single + _RECENTLY_S
        return max(1, slots.in_flight - others) * max(1, slots.tokens // row.tokens)

    def _enqueue(self, row: WaitingRow, now: float) -> None:
        """Put a row that was held back at the end of its queue."""
        row.arrived = now
        queue = self._queues.setdefault(self._kind(row), WaitingRows())
        queue.append(row, run_tokens=self._engine.slots.tokens)
        row.is_held = False
        for request, _ in row.requests:
            request.active += 1

    def seconds_until_due(self, now: float) -> float:
        """Return how long the next row still waits for others to share its run; 0 if it is due."""
        return max(0.0, self._next_queue(now).due - now)

    def take(self, now: float) -> tuple[list[WaitingRow], list[WaitingRow]]:
        """Take the next micro-batch out of the queue.

        Returns:
            Rows to run together, and rows that no request waits for any more.
        """
        queue, slots = self._next_queue(now), self._engine.slots
        share = min(slots.tokens, math.ceil(self._tokens / slots.parallel))  # the rest is for the other workers
        rows: list[WaitingRow] = []
        unwanted: list[WaitingRow] = []
        tokens = longest = 0
        while queue.rows and (not rows or self._may_share(queue.rows[0].tokens, len(rows), tokens, longest, share)):
            row = queue.popleft()
            self._count_tokens(-row.tokens)
            if not queue.rows:
                del self._queues[self._kind(row)]
            if row.is_wanted(now):
                rows.append(row)
                tokens, longest = tokens + row.tokens, max(longest, row.tokens)
                row.is_running, row.started = True, now
                self._engine.recorder.observe("queue_seconds", now - row.arrived)
            else:
                unwanted.append(row)
                self.forget(row)
        return rows, unwanted

    def remove_unwanted(self, rows: Iterable[WaitingRow]) -> list[WaitingRow]:
        """Take those rows out of the queue that no request waits for any more, and return them."""
        removed = []
        for key in reversed([row.key for row in rows]):  # the rows that are held back first, so that none is queued
            row = self._known.get(key)
            if row is None or row.is_running or row.is_wanted(-math.inf):
                continue
            try:
                self._count_tokens(-row.tokens)
                if row.is_held:
                    row.is_held = False
                    del self._known[key]
                else:
                    queue = self._queues[self._kind(row)]
                    queue.remove(row)
                    if not queue.rows:
                        del self._queues[self._kind(row)]
                    self.forget(row)
            except BaseException:
                self._restore()
                raise
            removed.append(row)
        return removed

    def forget(self, row: WaitingRow) -> None:
        """Forget a row that was run or dropped. A newer row with the same tokens stays known."""
        if self._known.get(row.key) is not row:
            return
        del self._known[row.key]
        for request, _ in row.requests:
            request.active -= 1
            self._release(request, time.monotonic())

    def clear(self) -> list[WaitingRow]:
        """Forget all rows, queued and running, and return them."""
        rows = list(self._known.values())
        self._known.clear()
        self._queues.clear()
        self._count_tokens(-self._tokens)
        return rows

    def _restore(self) -> None:
        """Restore the invariant after an interrupt in the middle of a change."""
        self._queues = {kind: queue for kind, queue in self._queues.items() if queue.rows}
        for queue in self._queues.values():
            queue.count_again()
        queued = [row for queue in self._queues.values() for row in queue.rows]
        for row in queued:
            row.is_held = False
        waiting = [*queued, *(row for row in self._known.values() if row.is_held)]
        running = [row for row in self._known.values() if row.is_running]
        self._known = {row.key: row for row in (*waiting, *running)}
        self._count_tokens(sum(row.tokens for row in waiting) - self._tokens)
        for request in {request for row in waiting for request, _ in row.requests}:
            request.active = sum(other is request for row in (*queued, *running) for other, _ in row.requests)

    def _next_queue(self, now: float) -> WaitingRows:
        """Return the queue with the oldest row that is due; if none is due, the queue with the oldest row."""
        return min(self._queues.values(), key=lambda queue: (queue.due > now, queue.arrived))

    def _kind(self, row: WaitingRow) -> tuple[Outputs, int]:
        """Return what rows must have in common to share a run."""
        return row.outputs, 0 if self._engine.mixes_lengths else row.tokens

    def _may_share(self, length: int, rows: int, tokens: int, longest: int, share: int) -> bool:
        """Return whether a row fits into a run of other rows, and costs less there than in a run of its own."""
        together, estimate = (rows + 1, tokens + length, max(longest, length)), self._engine.costs.estimate
        if tokens + length > share or together[0] * together[2] > self._engine.slots.max_padded_tokens:
            return False
        return estimate(*together) <= estimate(rows, tokens, longest) + estimate(1, length, length)

    def _count_tokens(self, tokens: int) -> None:
        self._tokens += tokens
        self._engine.recorder.count(queued_tokens=tokens)
