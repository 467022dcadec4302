"""Work that goes on in other threads: awaited, cancelled, prefetched, or spread over threads a few items at a time."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from encort.runtime.common.errors import InputError
from encort.runtime.common.forks import new_lock
from encort.runtime.engine.future import Future

Item = TypeVar("Item")
Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


class Pending(Protocol[Result_co]):
    """Work that was started in other threads."""

    def result(self) -> Result_co:
        """Wait for the result."""

    def cancel(self) -> object:
        """Start no more of the work. Parts that run already are finished, and their results are dropped."""


def prefetch(start: Callable[[Item], Pending[Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Yield one result per item, in order, and start the next item's work before each result is yielded.

    Closing the iterator early cancels pending work.

    Args:
        start: Starts the work on one item.
        items: Read one item ahead.

    Raises:
        InputError: Reading or starting an item failed. It is raised after the results of the items before it.
    """
    started = map(start, items)
    current = next(started, None)
    following: Pending[Result] | None = None
    try:
        while current is not None:
            failure: InputError | None = None
            try:
                following = next(started, None)
            except InputError as error:
                following, failure = None, error
            yield current.result()
            if failure is not None:
                raise failure
            current = following
    finally:
        for pending in (current, following):
            if pending is not None:
                pending.cancel()


class BoundedMap(Generic[Item]):
    """Calls a function with each item in a pool of threads, with a bounded number of items in the pool at a time.

    A thread that finishes an item submits the next one at the end of the pool's queue, so that other callers of the
    pool get their turn between two items.
    """

    def __init__(
        self,
        submit: Callable[..., Future[Any]],
        function: Callable[[Item], None],
        items: Iterable[Item],
        *,
        in_flight: int,
    ) -> None:
        """Submit the first items.

        Args:
            submit: Makes a thread of the pool call a function with arguments.
            function: Called once per item.
            in_flight: Most items in the pool at a time.
        """
        self._submit, self._function, self._remaining = submit, function, iter(items)
        self._futures: deque[Future[Any]] = deque()
        self._lock, self._stopped = new_lock(), False
        try:
            for _ in range(in_flight):
                self._submit_next()
        except BaseException:
            self.cancel()
            raise

    def result(self) -> None:
        """Wait for all items. The first error is raised, and the items that were not started are dropped."""
        try:
            while self._futures:
                self._futures.popleft().result()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Start no more items."""
        with self._lock:
            self._stopped = True
        for future in self._futures:
            future.cancel()

    def _work(self, item: Item) -> None:
        try:
            self._function(item)
        except BaseException:
            self._stopped = True
            raise
        # Before this future is done: `result` must find the next one when it looks for more.
        self._submit_next()

    def _submit_next(self) -> None:
        with self._lock:
            if not self._stopped:
                self._futures.extend(self._submit(self._work, item) for item in itertools.islice(self._remaining, 1))
