"""Work that is begun while the results of what came before it are used."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from encort.runtime.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Pending(Generic[Result]):
    """Work that goes on in threads.

    Attributes:
        result: Waits for it.
        cancel: Begins no more of it; what runs is finished, and read by nobody.
    """

    result: Callable[[], Result]
    cancel: Callable[[], None]


def prefetch(begin: Callable[[Item], Pending[Result]], items: Iterable[Item]) -> Iterator[Result]:
    """Results in order, each given when the next is begun; whoever leaves early cancels what is begun.

    Args:
        begin: Begins the work on an item.
        items: Whose own error, or that of a beginning, comes after the results of the items before.
    """
    remaining = map(begin, items)
    waiting: Pending[Result] | None = None
    following: Pending[Result] | None = None
    try:
        while True:
            wrong: InputError | None = None
            try:
                following = next(remaining, None)
            except InputError as error:  # what came before was good
                following, wrong = None, error
            if waiting is not None:
                yield waiting.result()
            if wrong is not None:
                raise wrong
            if following is None:
                return
            waiting = following
    finally:
        for each in (waiting, following):
            if each is not None:
                each.cancel()
