"""`load` and `Model`: texts in, results out, in the caller's order."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import numpy as np

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import SENTENCE_EMBEDDING, TOKENIZER_FILE, HeadInfo, Manifest, Task, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number, choice
from encort.runtime.common.errors import InputError, InputTooLongError, InputTypeError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.costs import Costs, costs_file, read_costs, save_costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.pending import Pending, prefetch
from encort.runtime.engine.session import CPU_PROVIDER, Runner, Session, check_provider
from encort.runtime.engine.stats import Stats
from encort.runtime.engine.tokenizer_pool import CHUNK, TokenizerPool
from encort.runtime.options import Options
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.serving.service import ServiceContext
from encort.runtime.tasks.results import Answer, Classification, Matches, Span
from encort.runtime.tasks.specs import Results, Tasks, TaskSpec
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.validation import is_token_ids
from encort.runtime.text.windows import Overflow
from encort.runtime.verification.golden import check_results

Inputs = Sequence[Text] | Sequence[TokenIds] | TokenBatch
"""What every task takes: texts, pairs, token ids, or what `tokenize` gave for them."""


def load(
    bundle: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int | None = None,
    spinning: bool = False,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
) -> "Model":
    """Open a bundle for serving.

    Args:
        bundle: Folder that `encort export` made.
        device: `"auto"` (the CPU), `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, or `"cuda:0,1"` for several.
        precision: `"auto"` (the exporter's best), `"fp32"`, `"int8"` or, on GPUs, `"fp16"`.
        threads: Cores to use; None takes what the affinity mask and the container's quota allow.
        spinning: Keep the threads of single texts turning between calls: lower latency, for a process that has its
            cores to itself.
        provider: Another execution provider of the installed onnxruntime by its name, such as
            `"OpenVINOExecutionProvider"`, for the portable graph; None takes the device's own.
        provider_options: Passed through to it.

    Raises:
        BundleError: The folder is not a usable bundle; see `encort.errors` for the cases.
        DeviceError: The device or the provider cannot be had.
        InputError: An option has no such value.
    """
    options = Options(
        device=device,
        precision=precision,
        threads=threads,
        spinning=spinning,
        provider=provider,
        provider_options=dict(provider_options or {}),
    )
    return Model(Bundle.open(bundle), options)


class Model:
    """A loaded bundle. Thread-safe; use it as a context manager or call `close`. Pickled, it is loaded again."""

    def __init__(self, bundle: Bundle, options: Options) -> None:
        check_provider(options.chosen_provider)
        self._bundle, self._options, self._opened = bundle, options, ExitStack()
        self._variant = (
            bundle.portable() if options.is_foreign else bundle.variant(options.chosen_device, options.chosen_precision)
        )
        self._tasks = Tasks(bundle.folder, bundle.manifest, self._variant)
        cores, numbers = available_cores(), options.device_numbers
        self._devices: cuda.DeviceSessions | None = None
        self._engine = Engine(
            self._variant,
            self._session_maker(),
            threads=options.threads or cores,
            costs=read_costs(self._costs_file, cuda.COSTS if numbers else Costs()),
            may_widen=options.chosen_provider == CPU_PROVIDER,
            slots=cuda.slots(numbers) if numbers else None,
        )
        self._tokenize = TokenizerPool(
            Tokenizer(bundle.path(TOKENIZER_FILE), max_length=bundle.manifest.max_length),
            self._engine,
            return_offsets=any(head.task.is_tokenwise for head in bundle.manifest.heads),
            reverse=self._variant.reads_reversed,
            all_cores=options.threads in (None, cores),
        )

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself: task, labels, limits, variants with their fidelity."""
        return self._bundle.manifest

    @property
    def variant(self) -> Variant:
        """The bundle's graph that is served, with its precision and its certificate."""
        return self._variant

    @property
    def dimension(self) -> int:
        """Size of a sentence embedding.

        Raises:
            WrongTaskError: The bundle gives none.
        """
        return int(self._variant.outputs[self._tasks.embedding_output(SENTENCE_EMBEDDING)][-1])

    def head(self, name: str | None = None, *tasks: Task) -> HeadInfo:
        """The head of that name; without a name the first, for one of the tasks if any are given.

        Raises:
            WrongTaskError: The bundle has no such head.
        """
        return self._tasks.head(name, *tasks)

    def tokenize(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: str = "truncate",
        stride: int | None = None,
        first: int = 0,
    ) -> TokenBatch:
        """Token ids of texts or pairs; every task takes the result in place of texts.

        It says of each text how many tokens were read (`tokens_of_texts`) and whether it was cut (`truncated_texts`).

        Args:
            texts: Each a str, or a tuple of two str for a pair; or token ids for all, each a list or an array, of
                single texts: their types are 0.
            overflow: `"truncate"` cuts inputs at the limit, `"error"` refuses them, `"window"` reads all of them in
                overlapping windows.
            stride: Tokens that neighbouring windows share; None takes a quarter of a window, 128 at most.
            first: Number of the first text, for messages about a part of many.

        Raises:
            InputTypeError: Not a list of str or pairs of str.
            InputError: A text is not Unicode, or an id is not in the vocabulary.
            InputTooLongError: A text passes the limit, with `overflow="error"`.
        """
        return self._tokenize(texts, overflow=overflow, stride=stride, first=first)

    def tokenize_stream(
        self, texts: Iterable[Text], *, overflow: str = "truncate", stride: int | None = None, chunk: int = CHUNK
    ) -> Iterator[TokenBatch]:
        """Token batches of any number of texts, each tokenized while the one before it is run.

        Args:
            chunk: Texts of a batch.

        Raises:
            InputError: See `tokenize`.
        """
        return self._tokenize.stream(texts, overflow=overflow, stride=stride, chunk=chunk)

    def embed(self, texts: Inputs, *, overflow: str | None = None, stride: int | None = None) -> FloatArray:
        """Sentence embeddings, `(n, dim)` float32, pooled and normalized as the bundle says.

        Args:
            overflow: See `tokenize`; the embedding of several windows is their mean, weighted by their tokens.

        Raises:
            WrongTaskError: The bundle gives none.
            InputError: See `tokenize`.
        """
        return self._call(self._tasks.embed(), texts, overflow, stride)

    def embed_tokens(
        self, texts: Inputs, *, overflow: str | None = None, stride: int | None = None
    ) -> list[FloatArray]:
        """The last hidden state of every text, `(tokens, dim)` float32, special tokens included.

        Raises:
            WrongTaskError: The bundle gives none.
            InputError: See `tokenize`.
        """
        return self._call(self._tasks.embed_tokens(), texts, overflow, stride)

    def classify(
        self, texts: Inputs, *, head: str | None = None, overflow: str | None = None, stride: int | None = None
    ) -> list[Classification]:
        """The class of every text or pair.

        Args:
            head: Its name, where a bundle has several; None takes the first that classifies.
            overflow: See `tokenize`; the logits of several windows are averaged, weighted by their tokens.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._call(self._tasks.classify(head), texts, overflow, stride)

    def score(
        self, texts: Inputs, *, head: str | None = None, overflow: str | None = None, stride: int | None = None
    ) -> FloatArray:
        """One number for every text or pair, `(n,)` float32, as a regression was trained to give.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._call(self._tasks.score(head), texts, overflow, stride)

    def tag(
        self, texts: Inputs, *, head: str | None = None, overflow: str | None = None, stride: int | None = None
    ) -> list[Matches[Span]]:
        """Tagged spans of every text, in reading order, with their places in the text that was given.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: A pair.
            InputError: See `tokenize`.
        """
        return self._call(self._tasks.tag(head), texts, overflow, stride)

    def answer(
        self,
        questions: Inputs,
        *,
        n_best: int = 1,
        head: str | None = None,
        overflow: str | None = None,
        stride: int | None = None,
    ) -> list[Matches[Answer]]:
        """Answers to questions from their contexts, the most probable first.

        Args:
            questions: Pairs of question and context.
            n_best: Most answers to one question.
            overflow: See `tokenize`; None reads long contexts in windows.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: A text that is no pair.
            InputError: See `tokenize`; or `n_best` below 1.
        """
        return self._call(self._tasks.answer(head, n_best=n_best), questions, overflow, stride)

    def predict(
        self, texts: Inputs, *, overflow: str | None = None, stride: int | None = None
    ) -> FloatArray | list[Classification] | list[Matches[Span]] | list[Matches[Answer]]:
        """Whatever the bundle's task is: `classify`, `score`, `tag` or `answer` with its first head, or `embed`."""
        found: FloatArray | list[Classification] | list[Matches[Span]] | list[Matches[Answer]]
        found = self._call(self._tasks.predict(), texts, overflow, stride)
        return found

    def serving(self, *, max_wait_ms: float = 0, queue_tokens: int = 65536) -> ServiceContext:
        """Serve concurrent callers, each with one text: `with model.serving() as service`, or `async with`.

        Args:
            max_wait_ms: How long a text waits for others to share its run while a core is free; texts that come
                while all cores are busy share runs without it.
            queue_tokens: Most tokens that wait; beyond it callers get `OverloadedError`.

        Raises:
            InputTypeError: An option is no number.
            InputError: It is out of its range.
        """
        check_number("max_wait_ms", max_wait_ms)
        scheduler = Scheduler(self._engine, max_wait_s=float(max_wait_ms) / 1000, queue_tokens=queue_tokens)
        if queue_tokens < self.manifest.max_length:
            raise InputError(f"queue_tokens must be at least {self.manifest.max_length}, one text; got {queue_tokens}")
        return ServiceContext(self.tokenize, self._tasks, scheduler)

    def stats(self) -> Stats:
        """What the model has done so far."""
        return self._engine.recorder.stats()

    def warm_up(self) -> None:
        """Do now what the first calls would wait for: threads, sessions, the memory of the longest texts and runs.

        On GPUs small runs are faster from now on, by captured graphs. No other thread of the process may use a GPU
        meanwhile, another model's included.

        Raises:
            ModelClosedError: The model was closed.
            DeviceError: A GPU captured no graphs; load the model again.
        """
        self._engine.check_open()
        if self._devices is not None:
            self._devices.warm_up(self.manifest.max_length)
            self._check_devices(self._devices)  # the captured graphs
        self._engine.warm_up(self.manifest.max_length)

    def measure_costs(self) -> Costs:
        """Measure what a run costs on this machine, and plan by it from now on; about a second."""
        return self._engine.measure_costs(self.manifest.max_length)

    def calibrate(self) -> Costs:
        """The same, and keep it in the user's cache folder, where `load` finds it.

        Raises:
            OSError: The folder cannot be written.
        """
        if self._costs_file is None:
            raise InputError("costs are kept for CPUs, in the user's cache folder; without a home, set XDG_CACHE_HOME")
        costs = self.measure_costs()
        save_costs(costs, self._costs_file)
        return costs

    def close(self) -> None:
        """Finish what runs and let the threads go; closing twice is fine."""
        self._engine.close()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Model"], tuple[Path, Options]]:
        return _reopened, (self._bundle.folder, self._options)

    @property
    def _costs_file(self) -> Path | None:
        if self._options.device_numbers:  # they are kept by the kind of processor
            return None
        graph = self.manifest.files[self._variant.file].sha256
        return costs_file(graph, self._options.chosen_provider)

    def _session_maker(self) -> Callable[[int], Runner]:
        """Opens a session of that many threads over the variant's files, whose hashes are checked here, once."""
        graph, options = self._bundle.graph(self._variant), self._options

        def open_session(threads: int) -> Session:
            session = Session(
                graph,
                self._variant,
                threads=threads,
                spinning=options.spinning,
                provider=options.chosen_provider,
                provider_options=options.provider_options,
            )
            if options.is_foreign:
                check_results(self._bundle, self._variant, session)
            return session

        def open_devices(_: int) -> cuda.DeviceSessions:
            devices = cuda.open_devices(
                graph,
                self._variant,
                options.device_numbers,
                options.provider_options,
                longest=self.manifest.max_length,
            )
            self._devices = devices
            self._opened.callback(devices.close)
            self._check_devices(devices)
            return devices

        return open_devices if options.device_numbers else open_session

    def _check_devices(self, devices: cuda.DeviceSessions) -> None:
        """Nobody may have run the graph on this kind of device before."""
        for device in devices.devices:
            check_results(self._bundle, self._variant, device)

    def _call(self, call: TaskSpec[Results], texts: Inputs, overflow: str | None, stride: int | None) -> Results:
        if isinstance(texts, TokenBatch):
            return self._begin(call, self._checked(texts, overflow, stride)).result()
        policy = call.overflow if overflow is None else overflow
        if is_token_ids(texts) or not isinstance(texts, Sequence) or len(texts) <= CHUNK:
            return self._begin(call, self.tokenize(texts, overflow=policy, stride=stride)).result()
        batches = self.tokenize_stream(cast("Sequence[Text]", texts), overflow=policy, stride=stride)
        return _joined(list(prefetch(lambda batch: self._begin(call, batch), batches)))

    def _begin(self, call: TaskSpec[Results], batch: TokenBatch) -> Pending[Results]:
        if self._variant.reads_reversed and batch.reversed is None:
            raise InputTypeError("this model reads pairs in either order: give pairs of texts, or what tokenize gives")
        call.check(batch)
        begun = self._engine.begin(batch, call.outputs)
        return Pending(lambda: call.results(batch, begun.result()), begun.cancel)

    def _checked(self, batch: TokenBatch, overflow: str | None, stride: int | None) -> TokenBatch:
        if stride is not None:
            raise InputError("stride is for texts; give it to tokenize")
        policy = None if overflow is None else choice(Overflow, "overflow", overflow)
        if policy is Overflow.WINDOW and batch.truncated.any():
            raise InputError('the batch was cut at the limit; tokenize the texts with overflow="window"')
        if policy is Overflow.ERROR and batch.truncated.any():
            raise InputTooLongError(f"text {int(batch.truncated.argmax())} of the batch was cut at the limit")
        return batch


def _reopened(folder: Path, options: Options) -> Model:
    return Model(Bundle.open(folder), options)


def _joined(parts: list[Results]) -> Results:
    joined: Any = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else [*itertools.chain(*parts)]
    return cast("Results", joined)
