"""The tasks: what each asks of the graph, and how its results come out of the arrays."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, HeadInfo, Manifest, Task, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_whole
from encort.runtime.common.errors import InputTypeError, WrongTaskError
from encort.runtime.tasks.answers import answers
from encort.runtime.tasks.results import Answer, Classification, Matches, Span, classifications, sigmoid, softmax
from encort.runtime.tasks.spans import spans
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.windows import Overflow, merge_windows

Results = TypeVar("Results", bound=Sequence[Any] | FloatArray)

CLASSIFIERS = tuple(task for task in Task if task.is_classification)


def _check_nothing(_: TokenBatch) -> None:
    """Any text, pair or token ids will do."""


@dataclass(frozen=True)
class TaskSpec(Generic[Results]):
    """One task with its options.

    Attributes:
        outputs: Of the graph, that it needs.
        postprocess: Results, one a text, from those outputs; for text `i` of the batch, row `i`.
        tokenwise: The outputs have a row a token.
        normalize: The outputs have length 1.
        check: Refuses inputs that are not for this task.
        overflow: What becomes of too long inputs, if the caller does not say.
    """

    outputs: Sequence[str]
    postprocess: Callable[[TokenBatch, list[FloatArray]], Results]
    tokenwise: bool = False
    normalize: bool = False
    check: Callable[[TokenBatch], None] = _check_nothing
    overflow: Overflow = "truncate"

    def finish(self, batch: TokenBatch, arrays: Sequence[FloatArray]) -> Results:
        """Results from the graph's outputs, windows of one text as one."""
        whole, merged = merge_windows(batch, arrays, tokenwise=self.tokenwise, normalize=self.normalize)
        return self.postprocess(whole, merged)


@dataclass(frozen=True)
class Tasks:
    """What one variant of a bundle can be asked for.

    Attributes:
        folder: Of the bundle, for messages.
    """

    folder: Path
    manifest: Manifest
    variant: Variant

    def head(self, name: str | None, *tasks: Task) -> HeadInfo:
        """The head of that name; without a name the first, for one of the tasks if any are given.

        Raises:
            WrongTaskError: The bundle has no such head.
        """
        for head in self.manifest.heads:
            if name in (None, head.name) and (not tasks or head.task in tasks):
                return head
        have = ", ".join(f"{head.name} ({head.task})" for head in self.manifest.heads) or "none"
        wanted = "head" if name is None else f"head {name!r}"
        purpose = f" for {' or '.join(tasks)}" if tasks else ""
        raise WrongTaskError(f"{self.folder} has no {wanted}{purpose}; its heads: {have}")

    def embedding_output(self, output: str) -> str:
        """The name, if the graph has it.

        Raises:
            WrongTaskError: It does not.
        """
        if output not in self.variant.outputs:
            raise WrongTaskError(
                f"variant {self.variant.name} of {self.folder} gives no {output}; "
                f"it gives: {', '.join(self.variant.outputs)}"
            )
        return output

    def embed(self) -> TaskSpec[FloatArray]:
        embedding = self.manifest.embedding
        return TaskSpec(
            outputs=[self.embedding_output(SENTENCE_EMBEDDING)],
            postprocess=lambda _, arrays: arrays[0],
            normalize=embedding is not None and embedding.normalize,
        )

    def embed_tokens(self) -> TaskSpec[list[FloatArray]]:
        return TaskSpec(
            outputs=[self.embedding_output(LAST_HIDDEN_STATE)],
            postprocess=lambda batch, arrays: np.split(arrays[0], batch.cu_seqlens[1:-1]) if len(batch) else [],
            tokenwise=True,
        )

    def classify(self, head: str | None) -> TaskSpec[list[Classification]]:
        chosen = self.head(head, *CLASSIFIERS)
        scale = sigmoid if chosen.task is Task.MULTI_LABEL_CLASSIFICATION else softmax
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: classifications(arrays[0], chosen.labels, batch, scale=scale),
        )

    def score(self, head: str | None) -> TaskSpec[FloatArray]:
        chosen = self.head(head, Task.TEXT_REGRESSION)
        return TaskSpec(outputs=chosen.outputs, postprocess=lambda _, arrays: arrays[0][:, 0])

    def tag(self, head: str | None) -> TaskSpec[list[Matches[Span]]]:
        chosen = self.head(head, Task.TOKEN_CLASSIFICATION)
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: spans(arrays[0], chosen.labels, batch, tags_words=chosen.tags_words),
            tokenwise=True,
            check=_check_singles,
        )

    def answer(self, head: str | None, *, n_best: int = 1) -> TaskSpec[list[Matches[Answer]]]:
        chosen = self.head(head, Task.QUESTION_ANSWERING)
        check_whole("n_best", n_best, least=1)
        return TaskSpec(
            outputs=chosen.outputs,
            postprocess=lambda batch, arrays: answers(arrays[0], arrays[1], batch, n_best=n_best),
            tokenwise=True,
            check=_check_pairs,
            overflow="window",
        )

    def predict(self) -> TaskSpec[Any]:
        """Whatever the first head is for; embeddings where there is none."""
        task = self.manifest.task
        if task in CLASSIFIERS:
            return self.classify(None)
        if task is Task.TEXT_REGRESSION:
            return self.score(None)
        if task is Task.TOKEN_CLASSIFICATION:
            return self.tag(None)
        if task is Task.QUESTION_ANSWERING:
            return self.answer(None)
        return self.embed()


def _check_singles(batch: TokenBatch) -> None:
    _check_places(batch)
    if any(isinstance(text, tuple) for text in batch.texts):
        raise InputTypeError("pairs cannot be tagged; give single texts")


def _check_pairs(batch: TokenBatch) -> None:
    _check_places(batch)
    if any(isinstance(text, str) for text in batch.texts):
        raise InputTypeError("each input must be a pair of question and context")


def _check_places(batch: TokenBatch) -> None:
    """It must be known where in their texts the tokens stand."""
    if batch.offsets is None or len(batch.texts) != len(batch.truncated_texts):
        raise InputTypeError("the batch does not say where its tokens stand; tokenize texts with this model")
