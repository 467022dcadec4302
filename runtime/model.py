"""`load` and `Model`: texts in, results out, in the caller's order."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import (
    SENTENCE_EMBEDDING,
    TOKENIZER_FILE,
    HeadInfo,
    Manifest,
    Precision,
    Task,
    Variant,
)
from encort.runtime.common.aggregation import Aggregation, AggregationName
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number
from encort.runtime.common.errors import InputError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.costs import Costs, costs_file, read_costs, save_costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.session import CPU_PROVIDER
from encort.runtime.engine.stats import Stats
from encort.runtime.engine.tokenizer_pool import CHUNK, TokenizerPool
from encort.runtime.options import DeviceName, LoadOptions, PrecisionName
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.serving.service import ServiceContext
from encort.runtime.sessions import SessionOpener
from encort.runtime.task_runner import Inputs, TaskRunner
from encort.runtime.tasks.results import Answers, Classification, Matches, Span, TaggedWord
from encort.runtime.tasks.specs import Tasks
from encort.runtime.text.token_batch import Text, TokenBatch, TokenIds
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.text.windows import Overflow


def load(
    bundle: str | Path,
    *,
    device: DeviceName | Sequence[DeviceName] = "auto",
    precision: PrecisionName | Precision = "auto",
    threads: int | None = None,
    max_length: int | None = None,
    spinning: bool = False,
    provider: str | None = None,
    provider_options: Mapping[str, str] | None = None,
) -> "Model":
    """Open a bundle for serving.

    >>> with encort.load("banking.bundle") as model:  # doctest: +SKIP
    ...     model.embed(["a text", "another text"])

    Args:
        bundle: Folder that `encort export` made.
        device: `"auto"` (the CPU), `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, or several as
            `["cuda:0", "cuda:1"]`.
        precision: `"auto"` (the exporter's first choice), `"fp32"`, `"int8"`, or on GPUs `"fp16"`.
        threads: Cores to use; None: what the affinity mask and the container's quota allow.
        max_length: Most tokens of one input, if fewer than the bundle's own limit: shorter inputs take less time.
        spinning: Let the threads of single texts spin between calls. This lowers the latency of a process that has its
            cores to itself.
        provider: Name of another execution provider of the installed onnxruntime, such as
            `"OpenVINOExecutionProvider"`. It runs the portable graph. None: the device's own provider.
        provider_options: Passed through to the provider.

    Raises:
        BundleError: The folder is not a usable bundle; see `encort.errors` for the cases.
        DeviceError: The device or the provider is not available.
        InputError: An option has no such value.
    """
    options = LoadOptions(
        device=device,
        precision=precision,
        threads=threads,
        max_length=max_length,
        spinning=spinning,
        provider=provider,
        provider_options=dict(provider_options or {}),
    )
    return Model(Bundle.open(bundle), options)


class Model:
    """A loaded bundle, for any number of threads.

    Use it as a context manager, or call `close`. A pickled model is loaded again where it is unpickled.
    """

    def __init__(self, bundle: Bundle, options: LoadOptions) -> None:
        """Open a session, the tokenizer and the threads; see `load`."""
        # The golden vectors, which sessions are checked with, may be longer than the limit.
        self._sessions = SessionOpener(bundle, options)
        bundle = bundle.limited(options.max_length)
        self._bundle, self._options = bundle, options
        self._variant = self._sessions.variant
        tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        self._tasks = Tasks(bundle.folder, bundle.manifest, self._variant, tokenizer.subword_marks)
        cores, gpus = available_cores(), options.gpu_numbers
        self._engine = Engine(
            self._variant,
            self._sessions.open,
            threads=options.threads or cores,
            costs=read_costs(self._costs_file, cuda.COSTS if gpus else Costs()),
            has_all_cores_session=options.execution_provider == CPU_PROVIDER,
            slots=cuda.slots(gpus) if gpus else None,
        )
        self._tokenizer = TokenizerPool(
            tokenizer,
            self._engine,
            return_offsets=any(head.task.is_tokenwise for head in bundle.manifest.heads),
            reverse=self._variant.reads_reversed,
            all_cores=options.threads in (None, cores),
        )
        self._runner = TaskRunner(self._tokenizer, self._engine)

    @property
    def bundle(self) -> Bundle:
        """The bundle: its folder and its manifest."""
        return self._bundle

    @property
    def options(self) -> LoadOptions:
        """The options of `load`."""
        return self._options

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest: heads, labels, limits, and variants with their certificates."""
        return self._bundle.manifest

    @property
    def variant(self) -> Variant:
        """The graph that is served, with its precision and its certificate."""
        return self._variant

    @property
    def dimension(self) -> int:
        """Size of a sentence embedding.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
        """
        return int(self._variant.outputs[self._tasks.embedding_output(SENTENCE_EMBEDDING)][-1])

    def head(self, name: str | None = None, *tasks: Task) -> HeadInfo:
        """Return the head with this name; without a name the first head, for one of the tasks if any are given.

        Raises:
            WrongTaskError: The bundle has no such head.
        """
        return self._tasks.head(name, *tasks)

    def tokenize(
        self,
        texts: Sequence[Text] | Sequence[TokenIds],
        *,
        overflow: Overflow = "truncate",
        stride: int | None = None,
        first: int = 0,
    ) -> TokenBatch:
        """Return the token ids of texts or pairs. Every task takes the result in place of texts.

        The batch says how many tokens of each text were read (`tokens_per_text`) and which texts were cut
        (`truncated_texts`).

        Args:
            texts: Each a str, or a tuple of two str for a pair. Or token ids for all of them: a list or an array for
                each single text, special tokens included; their token types are 0.
            overflow: `"truncate"` cuts inputs at the limit, `"error"` refuses them, `"window"` reads them whole in
                overlapping windows.
            stride: Tokens that neighbouring windows share; None: a quarter of a window, at most 128.
            first: Number of the first text, for error messages about a part of many.

        Raises:
            InputTypeError: Not a list of str or pairs of str.
            InputError: A text is not Unicode, or an id is not in the vocabulary.
            InputTooLongError: A text is longer than the limit, with `overflow="error"`.
        """
        return self._tokenizer(texts, overflow=overflow, stride=stride, first=first)

    def tokenize_stream(
        self, texts: Iterable[Text], *, overflow: Overflow = "truncate", stride: int | None = None, chunk: int = CHUNK
    ) -> Iterator[TokenBatch]:
        """Yield token batches of any number of texts. The next batch is tokenized while the caller runs this one.

        Args:
            texts: Read one chunk ahead.
            overflow: See `tokenize`.
            stride: See `tokenize`.
            chunk: Texts per batch.

        Raises:
            InputError: See `tokenize`.
        """
        return self._tokenizer.stream(texts, overflow=overflow, stride=stride, chunk=chunk)

    def embed(self, texts: Inputs, *, overflow: Overflow | None = None, stride: int | None = None) -> FloatArray:
        """Return sentence embeddings, `(n, dim)` float32, pooled and normalized as the manifest says.

        Args:
            texts: See `tokenize`.
            overflow: See `tokenize`. The embedding of several windows is their mean, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.embed(), texts, overflow, stride)

    def embed_tokens(
        self, texts: Inputs, *, overflow: Overflow | None = None, stride: int | None = None
    ) -> list[FloatArray]:
        """Return the last hidden state of every text, `(tokens, dim)` float32, special tokens included.

        Raises:
            WrongTaskError: The bundle gives no hidden states.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.embed_tokens(), texts, overflow, stride)

    def classify(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> list[Classification]:
        """Return the class of every text or pair.

        Args:
            texts: See `tokenize`.
            head: Name of the head; None: the first that classifies.
            overflow: See `tokenize`. The logits of several windows are averaged, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.classify(head), texts, overflow, stride)

    def score(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray:
        """Return one number per text or pair, `(n,)` float32, from a regression head.

        For a cross-encoder, these are the numbers of `CrossEncoder.predict`, with its activation function.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.score(head), texts, overflow, stride)

    def logits(
        self, texts: Inputs, *, head: str | None = None, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray:
        """Return the logits of every text or pair, `(n, labels)` float32, from a head that classifies or scores.

        Args:
            texts: See `tokenize`.
            head: Name of the head; None: the first of these heads.
            overflow: See `tokenize`. The logits of several windows are averaged, weighted by their tokens.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputError: See `tokenize`.
        """
        return self._runner.run(self._tasks.logits(head), texts, overflow, stride)

    def tag(
        self,
        texts: Inputs,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Matches[Span]]:
        """Return the tagged spans of every text in reading order, with character offsets into the given text.

        Args:
            texts: See `tokenize`.
            aggregation: How spans are made of the tags of tokens; see `Aggregation`. None: as the head was made for.
            head: Name of the head; None: the first that tags tokens.
            overflow: See `tokenize`.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is a pair.
            InputError: See `tokenize`; or there is no such aggregation.
        """
        return self._runner.run(self._tasks.tag(head, aggregation=aggregation), texts, overflow, stride)

    def tag_words(
        self,
        words: Sequence[Sequence[str]] | TokenBatch,
        *,
        aggregation: AggregationName | Aggregation | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Matches[TaggedWord]]:
        """Return one tag for each word of every text, for texts that are lists of words.

        Args:
            words: Words of each text, or a batch of `JoinedWords`. They are joined as in training: words with a space
                between two of them, characters as they are. For a head that was trained elsewhere, each list is judged
                by what it holds: white space, or single letters without case, are characters.
            aggregation: Which scores of a word's tokens decide; see `Aggregation`. None: as the head was made for.
            head: Name of the head; None: the first that tags tokens.
            overflow: See `tokenize`. Words that are cut off have no tag.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is not a list of str.
            InputError: See `tokenize`; or there is no such aggregation.
        """
        spec = self._tasks.tag_words(head, aggregation=aggregation)
        if isinstance(words, TokenBatch):
            return self._runner.run(spec, words, overflow, stride)
        return self._runner.run(spec, [self._tasks.join_words(head, text) for text in words], overflow, stride)

    def answer(
        self,
        questions: Inputs,
        *,
        n_best: int = 1,
        null_threshold: float | None = None,
        head: str | None = None,
        overflow: Overflow | None = None,
        stride: int | None = None,
    ) -> list[Answers]:
        """Return answers to questions from their contexts, the most probable first; none where the context has none.

        Args:
            questions: Pairs of question and context.
            n_best: Most answers per question.
            null_threshold: A question has no answer (`Answers.no_answer`) if the logarithm of its null score is larger
                than that of the best answer's score by more than this. None: the threshold of the bundle, which
                training chose on validation data; 0 if there is none. `math.inf` always answers.
            head: Name of the head; None: the first that answers questions.
            overflow: See `tokenize`; None reads long contexts in windows.
            stride: See `tokenize`.

        Raises:
            WrongTaskError: The bundle has no such head.
            InputTypeError: An input is not a pair, or an option is not a number.
            InputError: See `tokenize`; or `n_best` is below 1, or `null_threshold` is NaN.
        """
        spec = self._tasks.answer(head, n_best=n_best, null_threshold=null_threshold)
        return self._runner.run(spec, questions, overflow, stride)

    def predict(
        self, texts: Inputs, *, overflow: Overflow | None = None, stride: int | None = None
    ) -> FloatArray | list[Classification] | list[Matches[Span]] | list[Answers]:
        """Return what the bundle is for: `classify`, `score`, `tag` or `answer` with its first head, or `embed`."""
        results: FloatArray | list[Classification] | list[Matches[Span]] | list[Answers]
        results = self._runner.run(self._tasks.predict(), texts, overflow, stride)
        return results

    def serving(self, *, max_wait_ms: float = 0, queue_tokens: int = 65536) -> ServiceContext:
        """Serve concurrent callers, each with one text per call: `with model.serving() as service`, or `async with`.

        Args:
            max_wait_ms: Milliseconds that a text waits for others to share its run while a core is free. Texts that
                arrive while all cores are busy share runs without waiting.
            queue_tokens: Most tokens that wait; beyond it callers get `OverloadedError`.

        Raises:
            InputTypeError: An option is not a number.
            InputError: An option is out of its range.
        """
        check_number("max_wait_ms", max_wait_ms)
        scheduler = Scheduler(self._engine, max_wait_s=float(max_wait_ms) / 1000, queue_tokens=queue_tokens)
        if queue_tokens < self.manifest.max_length:
            raise InputError(f"queue_tokens must be at least {self.manifest.max_length}, one text; got {queue_tokens}")
        return ServiceContext(self._tokenizer, self._tasks, scheduler)

    def stats(self) -> Stats:
        """Return counts and timings since the model was loaded."""
        return self._engine.recorder.stats()

    def warm_up(self) -> None:
        """Open what the first calls would wait for: threads, sessions, the memory of the longest texts and runs.

        On GPUs, small runs are captured as CUDA graphs and are faster from then on. No other thread of the process may
        use a GPU meanwhile, and no other model either.

        Raises:
            ModelClosedError: The model was closed.
            DeviceError: A GPU captured no graphs; load the model again.
        """
        self._engine.check_open()
        self._sessions.warm_up()
        self._engine.warm_up(self.manifest.max_length)

    def measure_costs(self) -> Costs:
        """Measure the costs of a run on this machine and plan by them from now on. It takes about a second."""
        return self._engine.measure_costs(self.manifest.max_length)

    def calibrate(self) -> Costs:
        """Measure the costs of a run and keep them in the user's cache folder, where `load` finds them.

        Raises:
            InputError: There is no such folder, or the model runs on GPUs.
            OSError: The folder cannot be written.
        """
        if self._costs_file is None:
            raise InputError("costs are kept for CPUs, in the user's cache folder; without a home, set XDG_CACHE_HOME")
        costs = self.measure_costs()
        save_costs(costs, self._costs_file)
        return costs

    def close(self) -> None:
        """Finish the runs in progress and release threads, sessions and devices. Closing twice is fine.

        In a forked child, which has none of them, nothing is released.
        """
        self._engine.close()
        if not self._engine.is_fork:
            self._sessions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Callable[..., "Model"], tuple[Path, LoadOptions]]:
        return _load_again, (self._bundle.folder, self._options)

    @property
    def _costs_file(self) -> Path | None:
        """File of measured costs; None on GPUs, because costs are kept per processor."""
        if self._options.gpu_numbers:
            return None
        return costs_file(self.manifest.files[self._variant.file].sha256, self._options.execution_provider)


def _load_again(folder: Path, options: LoadOptions) -> Model:
    return Model(Bundle.open(folder), options)
