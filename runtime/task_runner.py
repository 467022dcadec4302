"""The walk of every task: inputs are tokenized, run through the graph, and finished as results."""

import itertools
from collections.abc import Sequence
from typing import Any, Generic, cast, get_args

import numpy as np

from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_choice
from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.pending import Pending, prefetch
from encort.runtime.engine.tokenizer_pool import CHUNK, TokenizerPool
from encort.runtime.tasks.task_spec import Inputs, Results, TaskSpec
from encort.runtime.text.token_batch import Text, TokenBatch
from encort.runtime.text.validation import is_token_ids
from encort.runtime.text.windows import Overflow


class TaskRunner:
    """Runs the inputs of a task, and returns results in the caller's order."""

    def __init__(self, tokenizer: TokenizerPool, engine: Engine) -> None:
        """Connect a tokenizer with an engine."""
        self._tokenizer, self._engine = tokenizer, engine

    def run(self, spec: TaskSpec[Results], texts: Inputs, overflow: Overflow | None, stride: int | None) -> Results:
        """Tokenize, run, finish. More texts than a chunk take the same steps chunk by chunk.

        Args:
            spec: What the task makes of the outputs.
            texts: See `Model.tokenize`.
            overflow: See `Model.tokenize`; None: the policy of the task.
            stride: See `Model.tokenize`.

        Raises:
            InputError: See `Model.tokenize`.
        """
        policy = spec.overflow if overflow is None else overflow
        texts = spec.inputs(texts)
        if isinstance(texts, TokenBatch):
            _check_batch(texts, overflow, stride)
            batch = texts
        elif isinstance(texts, Sequence) and len(texts) > CHUNK and not is_token_ids(texts):
            return self._run_chunks(spec, cast("Sequence[Text]", texts), policy, stride)
        else:
            batch = self._tokenizer(texts, overflow=policy, stride=stride, prompt=spec.prompt)
        self._check(spec, batch)
        return spec.finish(batch, self._engine.run(spec.rows(batch), spec.outputs))

    def _run_chunks(
        self, spec: TaskSpec[Results], texts: Sequence[Text], overflow: Overflow, stride: int | None
    ) -> Results:
        # The inputs of one text stay in one chunk.
        chunk = max(1, CHUNK // spec.rows_per_text) * spec.rows_per_text
        batches = self._tokenizer.stream(texts, overflow=overflow, stride=stride, chunk=chunk, prompt=spec.prompt)
        return _concatenate(list(prefetch(lambda batch: self._start(spec, batch), batches)))

    def _start(self, spec: TaskSpec[Results], batch: TokenBatch) -> Pending[Results]:
        self._check(spec, batch)
        return _PendingResults(spec, batch, self._engine.start(spec.rows(batch), spec.outputs))

    def _check(self, spec: TaskSpec[Any], batch: TokenBatch) -> None:
        if self._engine.variant.reads_reversed and batch.reversed is None:
            raise InputTypeError("this model reads pairs in either order: give pairs of texts, or what tokenize gives")
        if self._engine.variant.reads_prompt_length and batch.prompt_length is None:
            raise InputTypeError(
                "this model leaves prompts out of embeddings, and the batch does not say where its prompt ends: "
                "give texts, or a batch of this model's tokenize"
            )
        spec.check(batch)


class _PendingResults(Generic[Results]):
    """Results of a batch that runs in the engine's threads; see `Pending`."""

    def __init__(self, spec: TaskSpec[Results], batch: TokenBatch, run: Pending[list[FloatArray]]) -> None:
        self._spec, self._batch, self._run = spec, batch, run

    def result(self) -> Results:
        """Wait for the outputs and make results of them."""
        return self._spec.finish(self._batch, self._run.result())

    def cancel(self) -> None:
        """Start no more of the batch."""
        self._run.cancel()


def _check_batch(batch: TokenBatch, overflow: Overflow | None, stride: int | None) -> None:
    """Refuse options that a batch of token ids cannot follow any more."""
    if stride is not None:
        raise InputError("stride is for texts; give it to tokenize")
    if overflow is not None:
        check_choice("overflow", overflow, get_args(Overflow))
    if overflow == "window" and batch.truncated.any():
        raise InputError('the batch was cut at the limit; tokenize the texts with overflow="window"')
    if overflow == "error" and batch.truncated.any():
        raise InputTooLongError(f"text {int(batch.truncated.argmax())} of the batch was cut at the limit")


def _concatenate(parts: list[Results]) -> Results:
    joined: Any = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [*itertools.chain(*parts)]
    return cast("Results", joined)
