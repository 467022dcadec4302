"""Work that is begun while the results of what came before it are used."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from encort.runtime.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


def one_ahead(begin: Callable[[Item], Callable[[], Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order, each given when the next is begun.

    Args:
        begin: Begins the work on an item; what it returns waits for the result.
        items: Whose own error, or that of a beginning, comes after the results of the items before.
    """
    waiting: Callable[[], Result] | None = None
    remaining = iter(items)
    while True:
        try:
            begun = [begin(item) for item in itertools.islice(remaining, 1)]
        except InputError:
            if waiting is not None:  # what came before was good
                yield waiting()
            raise
        if waiting is not None:
            yield waiting()
        if not begun:
            return
        (waiting,) = begun


def in_background(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order; two items are worked on at the same time, in threads of their own."""
    with ThreadPoolExecutor(2, thread_name_prefix="encort-ahead") as threads:
        yield from one_ahead(lambda item: threads.submit(function, item).result, items)
