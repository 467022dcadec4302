"""`load` and `Model`: texts in, results out, in the caller's order."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import onnxruntime

from encort.runtime.answers import answers
from encort.runtime.bundle import Bundle
from encort.runtime.cores import available_cores
from encort.runtime.errors import (
    DeviceError,
    EncortError,
    InputError,
    InputTooLongError,
    InputTypeError,
    ModelClosedError,
    WrongTaskError,
)
from encort.runtime.manifest import (
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    TOKENIZER_FILE,
    Device,
    Head,
    Manifest,
    Precision,
    Task,
)
from encort.runtime.planner import plan_equal_length
from encort.runtime.results import Answer, Classification, Span, classifications, sigmoid, softmax
from encort.runtime.session import FloatArray, Session
from encort.runtime.spans import spans
from encort.runtime.tokenizer import Overflow, Tokenizer
from encort.runtime.tokens import Int64Array, Text, TokenBatch

Choice = TypeVar("Choice", bound=StrEnum)

_CLASSIFIERS = tuple(task for task in Task if task.is_classification)


def load(bundle: str | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None) -> "Model":
    """Open a bundle for serving.

    Args:
        bundle: Folder that `encort export` made.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        precision: `"auto"` (the exporter's best), `"fp32"` or `"int8"`.
        threads: Cores to use; None takes what the affinity mask and the container's quota allow.

    Raises:
        BundleError: The folder is not a usable bundle; see `encort.errors` for the cases.
        DeviceError: The device cannot be had.
        InputError: An option has no such value.
    """
    return Model(Bundle.open(bundle), device=device, precision=precision, threads=threads)


class Model:
    """A loaded bundle. Thread-safe; use it as a context manager or call `close`."""

    def __init__(
        self, bundle: Bundle, *, device: str = "auto", precision: str = "auto", threads: int | None = None
    ) -> None:
        chosen = None if precision == "auto" else _choice(Precision, "precision", precision)
        if threads is not None and threads < 1:
            raise InputError(f"threads must be at least 1, got {threads}")
        self._bundle = bundle
        self._threads = threads or available_cores()
        self._variant = bundle.variant(_device(device), chosen)
        self._tokenizer = Tokenizer(bundle.path(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        # One core runs one micro-batch as efficiently as it can be run, so parallelism is over micro-batches.
        self._session = Session(bundle, self._variant, threads=1)
        self._workers = ThreadPoolExecutor(self._threads, thread_name_prefix="encort")
        self._process = os.getpid()
        self._closed = False

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself: task, labels, limits, variants with their fidelity."""
        return self._bundle.manifest

    @property
    def dimension(self) -> int:
        """Size of a sentence embedding.

        Raises:
            WrongTaskError: The bundle gives none.
        """
        return self._size(self._embedding_output(SENTENCE_EMBEDDING))

    def head(self, name: str | None = None, *tasks: Task) -> Head:
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
        raise WrongTaskError(f"{self._bundle.folder} has no {wanted}{purpose}; its heads: {have}")

    def tokenize(self, texts: Sequence[Text], *, overflow: str = "truncate", first: int = 0) -> TokenBatch:
        """Token ids of texts or pairs; every other method takes the result in place of texts.

        Args:
            texts: Each a str, or a tuple of two str for a pair.
            overflow: `"truncate"` cuts texts at the limit, `"error"` refuses them.
            first: Number of the first text, for messages about a part of many.

        Raises:
            InputTypeError: Not a list of str or pairs of str.
            InputError: A text is not Unicode.
            InputTooLongError: A text passes the limit, with `overflow="error"`.
        """
        return self._tokenizer(
            texts,
            overflow=_choice(Overflow, "overflow", overflow),
            first=first,
            places=any(head.task.is_tokenwise for head in self.manifest.heads),
            reverse=self._variant.reads_reversed,
        )

    def embed(self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate") -> FloatArray:
        """Sentence embeddings, `(n, dim)` float32, pooled and normalized as the bundle says.

        Raises:
            WrongTaskError: The bundle gives none.
            InputError: See `tokenize`.
        """
        output = self._embedding_output(SENTENCE_EMBEDDING)
        return self._run(self._tokens(texts, overflow), output)[0]

    def embed_tokens(self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate") -> list[FloatArray]:
        """The last hidden state of every text, `(tokens, dim)` float32, special tokens included.

        Raises:
            WrongTaskError: The bundle gives none.
            InputError: See `tokenize`.
        """
        output, batch = self._embedding_output(LAST_HIDDEN_STATE), self._tokens(texts, overflow)
        return np.split(self._run(batch, output)[0], batch.cu_seqlens[1:-1]) if len(batch) else []

    def classify(
        self, texts: Sequence[Text] | TokenBatch, *, head: str | None = None, overflow: str = "truncate"
    ) -> list[Classification]:
        """The class of every text or pair.

        Args:
            head: Its name, where a bundle has several; None takes the first that classifies.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        chosen = self.head(head, *_CLASSIFIERS)
        batch = self._tokens(texts, overflow)
        (logits,) = self._run(batch, *chosen.outputs)
        scale = sigmoid if chosen.task is Task.MULTI_LABEL_CLASSIFICATION else softmax
        return classifications(logits, chosen.labels, batch, scale=scale)

    def score(
        self, texts: Sequence[Text] | TokenBatch, *, head: str | None = None, overflow: str = "truncate"
    ) -> FloatArray:
        """One number for every text or pair, `(n,)` float32, as a regression was trained to give.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        chosen = self.head(head, Task.TEXT_REGRESSION)
        (logits,) = self._run(self._tokens(texts, overflow), *chosen.outputs)
        return logits[:, 0]

    def tag(
        self, texts: Sequence[Text] | TokenBatch, *, head: str | None = None, overflow: str = "truncate"
    ) -> list[list[Span]]:
        """Tagged spans of every text, in reading order, with their places in the text that was given.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: A pair.
            InputError: See `tokenize`.
        """
        chosen = self.head(head, Task.TOKEN_CLASSIFICATION)
        batch = self._placed_tokens(texts, overflow)
        if any(isinstance(text, tuple) for text in batch.texts):
            raise InputTypeError("pairs cannot be tagged; give single texts")
        (logits,) = self._run(batch, *chosen.outputs)
        return spans(logits, chosen.labels, batch)

    def answer(
        self,
        questions: Sequence[Text] | TokenBatch,
        *,
        n_best: int = 1,
        head: str | None = None,
        overflow: str = "truncate",
    ) -> list[list[Answer]]:
        """Answers to questions from their contexts, the most probable first.

        Args:
            questions: Pairs of question and context.
            n_best: Most answers to one question.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: A text that is no pair.
            InputError: See `tokenize`; or `n_best` below 1.
        """
        chosen = self.head(head, Task.QUESTION_ANSWERING)
        if n_best < 1:
            raise InputError(f"n_best must be at least 1, got {n_best}")
        batch = self._placed_tokens(questions, overflow)
        if any(isinstance(text, str) for text in batch.texts):
            raise InputTypeError("each input must be a pair of question and context")
        start, end = self._run(batch, *chosen.outputs)
        return answers(start, end, batch, n_best=n_best)

    def predict(
        self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate"
    ) -> FloatArray | list[Classification] | list[list[Span]] | list[list[Answer]]:
        """Whatever the bundle's task is: `classify`, `score`, `tag` or `answer` with its first head, or `embed`."""
        task = self.manifest.task
        if task in _CLASSIFIERS:
            return self.classify(texts, overflow=overflow)
        if task is Task.TEXT_REGRESSION:
            return self.score(texts, overflow=overflow)
        if task is Task.TOKEN_CLASSIFICATION:
            return self.tag(texts, overflow=overflow)
        if task is Task.QUESTION_ANSWERING:
            return self.answer(texts, overflow=overflow)
        return self.embed(texts, overflow=overflow)

    def close(self) -> None:
        """Finish the micro-batches that run and let the threads go; closing twice is fine."""
        self._closed = True
        self._workers.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _embedding_output(self, output: str) -> str:
        if output not in self._variant.outputs:
            raise WrongTaskError(
                f"variant {self._variant.name} of {self._bundle.folder} gives no {output}; "
                f"it gives: {', '.join(self._variant.outputs)}"
            )
        return output

    def _tokens(self, texts: Sequence[Text] | TokenBatch, overflow: str) -> TokenBatch:
        if not isinstance(texts, TokenBatch):
            return self.tokenize(texts, overflow=overflow)
        if _choice(Overflow, "overflow", overflow) is Overflow.ERROR and texts.truncated.any():
            raise InputTooLongError(f"text {int(texts.truncated.argmax())} of the batch was cut at the limit")
        if self._variant.reads_reversed and texts.reversed is None:
            raise InputTypeError("this model reads pairs in either order; tokenize them with its own tokenize")
        return texts

    def _placed_tokens(self, texts: Sequence[Text] | TokenBatch, overflow: str) -> TokenBatch:
        """Tokens of which it is known where in their texts they stand."""
        batch = self._tokens(texts, overflow)
        if batch.places is None or len(batch.texts) != len(batch):
            raise InputTypeError("the batch does not say where its tokens stand; tokenize texts with this model")
        return batch

    def _run(self, batch: TokenBatch, *outputs: str) -> list[FloatArray]:
        """Outputs of a graph for all texts: one row a text, or one row a token as in `batch.ids`."""
        arrays = [self._empty(batch, output) for output in outputs]

        def run(indices: Int64Array) -> None:
            found = self._session.run(outputs, batch.rows(indices))
            for output, array, rows in zip(outputs, arrays, found, strict=True):
                array[batch.positions(indices) if self._is_tokenwise(output) else indices] = rows

        self._spread(run, plan_equal_length(batch.lengths, workers=self._threads))
        return arrays

    def _empty(self, batch: TokenBatch, output: str) -> FloatArray:
        rows = len(batch.ids) if self._is_tokenwise(output) else len(batch)
        sizes = [int(axis) for axis in self._variant.outputs[output] if axis.isdecimal()]
        return np.empty((rows, *sizes), np.float32)

    def _is_tokenwise(self, output: str) -> bool:
        return "sequence" in self._variant.outputs[output]

    def _spread(self, run: Callable[[Int64Array], None], plan: Sequence[Int64Array]) -> None:
        """Run every micro-batch, several at a time; the first error is raised here."""
        closed = "this model was closed; load the bundle again"
        if self._closed:
            raise ModelClosedError(closed)
        if os.getpid() != self._process:
            raise EncortError("this model was loaded before a fork, which its threads did not survive; load it after")
        if len(plan) == 1:
            return run(plan[0])
        try:
            futures = [self._workers.submit(run, indices) for indices in plan]
        except RuntimeError as error:  # closed by another thread meanwhile
            raise ModelClosedError(closed) from error
        try:
            for future in futures:
                future.result()
        finally:
            # After an error or an interrupt, what has not begun is not begun.
            for future in futures:
                future.cancel()
        return None

    def _size(self, output: str) -> int:
        return int(self._variant.outputs[output][-1])


def _choice(kind: type[Choice], name: str, value: str) -> Choice:
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{name} must be one of {', '.join(kind)}; got {value!r}") from None


def _device(name: str) -> Device:
    if name == "auto":
        return Device.CPU
    device = _choice(Device, "device", name)
    if device is Device.CUDA and "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise DeviceError(
            "device='cuda' cannot be had: the installed onnxruntime has no CUDA provider; "
            'install onnxruntime-gpu in its place, or use device="cpu"'
        )
    return device
