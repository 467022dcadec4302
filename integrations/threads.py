"""Threads of a model in a worker of a batch engine: the cores that the worker has, not those of the machine."""

from collections.abc import Callable, Mapping
from typing import Any


def with_threads(options: Mapping[str, Any], cpus: Callable[[], float | None]) -> dict[str, Any]:
    """Return options with the `threads` of `encort.load` that an engine gives, unless they name threads or GPUs.

    Args:
        options: Options of a task, with those of `encort.load`.
        cpus: Returns the cores of the worker, of which a part counts as one; None: the engine does not say.
    """
    if options.get("threads") is not None or str(options.get("device", "auto")).startswith("cuda"):
        return dict(options)
    given = cpus()
    return {**options, **({} if given is None else {"threads": max(1, int(given))})}
