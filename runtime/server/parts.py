"""The texts of one request, in parts that the queue has room for.

The queue takes all texts of a part or none, so that a batch is charged for all its texts. A request has two parts in
the queue at most: one part runs, the other one waits, and the texts of other requests get their turn in between.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from encort.runtime.common.errors import InputTooLongError, OverloadedError
from encort.runtime.server.models import ServedModel
from encort.runtime.server.operations.record import current
from encort.runtime.serving.async_service import CallResults
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.token_batch import Text, TokenIds
from encort.runtime.text.windows import Overflow

_AT_ONCE = 2
"""Parts of a request that are in the queue at a time."""
_RETRY_S = 0.02
"""Seconds until a request that was accepted asks again for room for its next part."""

Texts = Sequence[Text | TokenIds]


async def run_parts(
    served: ServedModel, spec: TaskSpec[Any], texts: Texts, *, overflow: Overflow | None
) -> list[CallResults[Any]]:
    """Run texts, and return the results of each part in order. The first failure cancels the other parts.

    Raises:
        OverloadedError: The queue has no room for the first part. The later parts of a request wait for room.
    """
    size = served.part_texts
    if len(texts) <= size:
        return await _run_part(served, spec, texts, overflow=overflow, is_first=True)
    turns = asyncio.Semaphore(_AT_ONCE)

    async def run(start: int) -> list[CallResults[Any]]:
        async with turns:
            part = texts[start : start + size]
            return await _run_part(served, spec, part, overflow=overflow, is_first=start == 0)

    tasks = [asyncio.ensure_future(run(start)) for start in range(0, len(texts), size)]
    try:
        parts = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    return [results for part in parts for results in part]


async def _run_part(
    served: ServedModel, spec: TaskSpec[Any], texts: Texts, *, overflow: Overflow | None, is_first: bool
) -> list[CallResults[Any]]:
    while True:
        try:
            return [await served.service.run(spec, texts, overflow=overflow, timeout_s=current().seconds_left)]
        except OverloadedError:
            if is_first:
                raise
            await asyncio.sleep(_RETRY_S)
        except InputTooLongError:
            # Windows make many rows of long texts: each text may fit into the queue alone.
            if len(texts) == 1 or (overflow or spec.overflow) != "window":
                raise
            half = len(texts) // 2
            return [
                *await _run_part(served, spec, texts[:half], overflow=overflow, is_first=is_first),
                *await _run_part(served, spec, texts[half:], overflow=overflow, is_first=False),
            ]
