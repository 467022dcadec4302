"""Threads of a model in a worker of a batch engine: the cores that the worker has, not those of the machine."""

from collections.abc import Callable
from typing import Any, cast

from encort.integrations.lazy_model import LoadKeywords


def with_threads(options: LoadKeywords, cpus: Callable[[], float | None]) -> LoadKeywords:
    """Return options of `encort.load` with the threads that an engine gives, unless they name threads or GPUs.

    Args:
        options: Options of `encort.load`.
        cpus: Returns the cores of the worker, at least one thread is used; None: the engine does not say.
    """
    given: float | None = None
    if options.get("threads") is None and not str(options.get("device", "auto")).startswith("cuda"):
        given = cpus()
    threads: dict[str, Any] = {} if given is None else {"threads": max(1, int(given))}
    return cast("LoadKeywords", {**options, **threads})
