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

from encort.runtime.bundle import Bundle
from encort.runtime.cores import available_cores
from encort.runtime.errors import DeviceError, EncortError, InputError, ModelClosedError, WrongTaskError
from encort.runtime.manifest import TOKENIZER_FILE, Device, Layout, Manifest, Output, Precision, Task
from encort.runtime.planner import plan_equal_length
from encort.runtime.results import Classification, classifications
from encort.runtime.session import FloatArray, Session, graph_inputs
from encort.runtime.tokenizer import Overflow, Text, Tokenizer
from encort.runtime.tokens import Int64Array, TokenBatch

Choice = TypeVar("Choice", bound=StrEnum)


def load(bundle: str | Path, *, device: str = "auto", precision: str = "auto", threads: int | None = None) -> "Model":
    """Open a bundle for serving.

    Args:
        bundle: Folder that `encort export` made.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        precision: `"auto"` (the exporter's best) or `"fp32"`.
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
        self._variant = bundle.variant(_device(device), chosen, Layout.EQUAL_LENGTH)
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
        """Size of a sentence embedding."""
        return self._dimension(Output.SENTENCE_EMBEDDING)

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
        return self._tokenizer(texts, overflow=_choice(Overflow, "overflow", overflow), first=first)

    def embed(self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate") -> FloatArray:
        """Sentence embeddings, `(n, dim)` float32, pooled and normalized as the bundle says.

        Raises:
            InputError: See `tokenize`.
        """
        return self._run(self._tokens(texts, overflow), Output.SENTENCE_EMBEDDING)

    def classify(self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate") -> list[Classification]:
        """The class of every text.

        Raises:
            WrongTaskError: The bundle has no classification head.
            InputError: See `tokenize`.
        """
        if not self.manifest.labels:
            raise WrongTaskError(
                f"{self._bundle.folder} was exported for {self.manifest.task} and has no classification head; "
                "fine-tune one with: encort train text-classification"
            )
        batch = self._tokens(texts, overflow)
        return classifications(self._run(batch, Output.LOGITS), self.manifest.labels, batch)

    def predict(
        self, texts: Sequence[Text] | TokenBatch, *, overflow: str = "truncate"
    ) -> FloatArray | list[Classification]:
        """Whatever the bundle's task is: `classify` for text-classification, `embed` for feature-extraction."""
        if self.manifest.task is Task.TEXT_CLASSIFICATION:
            return self.classify(texts, overflow=overflow)
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

    def _tokens(self, texts: Sequence[Text] | TokenBatch, overflow: str) -> TokenBatch:
        policy = _choice(Overflow, "overflow", overflow)
        return texts if isinstance(texts, TokenBatch) else self._tokenizer(texts, overflow=policy)

    def _run(self, batch: TokenBatch, output: Output) -> FloatArray:
        """One row a text of a pooled output, `(n, dim)` float32."""
        rows = np.empty((len(batch), self._dimension(output)), np.float32)

        def run(indices: Int64Array) -> None:
            ids, type_ids = batch.rows(indices)
            (rows[indices],) = self._session.run([output], graph_inputs(Layout.EQUAL_LENGTH, ids, type_ids))

        plan = plan_equal_length(batch.lengths, workers=self._threads)
        self._spread(run, plan)
        return rows

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

    def _dimension(self, output: Output) -> int:
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
