"""Many small pieces of work over threads, a few at a time."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class BoundedMap(Generic[Item]):
    """A function called with each item; who is done with one begins the next, so that other callers get their turn."""

    def __init__(
        self,
        submit: Callable[..., "Future[Any]"],
        function: Callable[[Item], None],
        items: Iterable[Item],
        *,
        parallel: int,
    ) -> None:
        """Begin the first.

        Args:
            submit: Has a thread call a function with arguments.
            parallel: Items that are begun at the same time.
        """
        self._submit, self._function, self._remaining = submit, function, iter(items)
        self._begun: deque[Future[Any]] = deque()
        self._lock, self._stopped = threading.Lock(), False
        try:
            for _ in range(parallel):
                self._begin_next()
        except BaseException:
            self.cancel()
            raise

    def result(self) -> None:
        """Wait for all of them; the first error is raised, and what has not begun then is not begun."""
        try:
            while self._begun:
                self._begun.popleft().result()
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Begin no more."""
        with self._lock:
            self._stopped = True
        for future in self._begun:
            future.cancel()

    def _work(self, item: Item) -> None:
        try:
            self._function(item)
        except BaseException:
            self._stopped = True
            raise
        self._begin_next()  # before this one is seen to be done

    def _begin_next(self) -> None:
        with self._lock:
            if not self._stopped:
                self._begun.extend(self._submit(self._work, item) for item in itertools.islice(self._remaining, 1))
