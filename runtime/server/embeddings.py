"""Embeddings of the texts of one request, as every contract needs them."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import InputError
from encort.runtime.server.errors import Failure, RequestError
from encort.runtime.server.models import ServedModel
from encort.runtime.server.operations.record import current
from encort.runtime.server.parts import run_parts
from encort.runtime.serving.calls import rows_as_list
from encort.runtime.tasks.task_spec import TaskSpec
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.windows import Overflow

Input = str | list[str | int | list[int]]
"""One text, several, the token ids of one text, or those of several."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Results of the texts of one request.

    Attributes:
        items: One result per text, in the order of the request.
        tokens: Number of tokens that were read.
    """

    items: list[Any]
    tokens: int


class TokenBudget:
    """The tokens that one request may have. Several threads tokenize its texts."""

    def __init__(self, most: int) -> None:
        self._most, self._spent, self._lock = most, 0, threading.Lock()

    def spend(self, batch: TokenBatch) -> None:
        """Count the tokens of a batch.

        Raises:
            RequestError: They are more than the request may have.
        """
        with self._lock:
            self._spent += len(batch.ids)
            is_over = self._spent > self._most
        if is_over:
            message = f"the request has more than max_tokens={self._most} tokens; send fewer or shorter texts"
            raise RequestError(Failure.INVALID, message)

    def before(self, check: Callable[[TokenBatch], None]) -> Callable[[TokenBatch], None]:
        """Return a check of a batch that counts its tokens first."""

        def spend_and_check(batch: TokenBatch) -> None:
            self.spend(batch)
            check(batch)

        return spend_and_check


def as_texts(given: str | Sequence[str | int | list[int]], *, most: int) -> list[str | list[int]]:
    """Return the texts or token ids of an input, one per item.

    Raises:
        RequestError: There are none, or too many, or the input mixes texts and token ids.
    """
    items: Any = (
        [given] if isinstance(given, str) or (given and all(isinstance(item, int) for item in given)) else given
    )
    if not items or not all(items):
        raise RequestError(Failure.EMPTY, "the input is empty, or has an empty text; leave it out")
    check_count(len(items), most=most)
    if not all(isinstance(item, str) for item in items) and not all(isinstance(item, list) for item in items):
        raise RequestError(Failure.INVALID, "the input mixes texts and token ids; send one kind")
    return list(items)


def check_count(count: int, *, most: int) -> None:
    """Refuse too many texts."""
    if count > most:
        raise RequestError(Failure.INVALID, f"the request has {count} texts, the limit is max_items={most}")


async def run_all(
    served: ServedModel, spec: TaskSpec[Any], texts: Sequence[Text | TokenIds], *, overflow: Overflow | None = None
) -> Results:
    """Run texts through the queue that all requests share. A failure of one text is that of all.

    Raises:
        RequestError: The texts have too many tokens. Those behind the limit are not queued.
    """
    budget = TokenBudget(served.max_tokens)
    counted = replace(spec, accepts=budget.before(spec.accepts))
    record = current()
    record.model = served.name
    results = await run_parts(served, counted, texts, overflow=overflow)
    tokens = sum(int(part.batch.tokens_per_text.sum()) for part in results)
    record.texts, record.tokens = record.texts + len(texts), record.tokens + tokens
    record.calls += [part.times for part in results]
    items = [item for part in results for item in part.items]
    if served.shadow is not None:
        served.shadow.offer(spec, texts, items, overflow)
    return Results(items=items, tokens=tokens)


async def embed_all(
    served: ServedModel,
    texts: Sequence[str | list[int]],
    *,
    normalize: bool | None = None,
    dimensions: int | None = None,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
) -> tuple[FloatArray, int]:
    """Return embeddings, `(n, dimensions)` float32, and the number of tokens.

    Args:
        served: The model.
        texts: Texts or token ids.
        normalize: Whether embeddings have length 1, also when they are cut; None: as the bundle says.
        dimensions: See `Model.embed`.
        prompt: See `Model.embed`.
        overflow: See `Model.embed`.

    Raises:
        InputError: The bundle normalizes its embeddings and the caller wants them as they were before.
    """
    embedding = served.model.manifest.embedding
    is_normalized = embedding is not None and embedding.normalize
    if normalize is False and is_normalized:
        raise InputError("this bundle gives normalized embeddings only: leave normalize out, or send true")
    spec = served.service.tasks.embed(prompt=prompt, dimensions=dimensions)
    results = await run_all(served, rows_as_list(spec), texts, overflow=overflow)
    vectors: FloatArray = np.stack(results.items)
    if normalize or (normalize is None and is_normalized and dimensions is not None):
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
    return vectors, results.tokens
