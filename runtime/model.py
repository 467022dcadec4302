"""`load` and `Model`: texts in, results out, in the caller's order."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.kernels import kernels_instruction_set
from encort.runtime.bundle.manifest import (
    GOLDEN_FILE,
    SENTENCE_EMBEDDING,
    TOKENIZER_FILE,
    HeadInfo,
    Manifest,
    Precision,
    Task,
    Variant,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checks import check_number
from encort.runtime.common.errors import InputError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.costs import Costs, costs_file, read_costs, save_costs
from encort.runtime.engine.engine import Engine
from encort.runtime.engine.session import CPU_PROVIDER
from encort.runtime.engine.stats import Stats
from encort.runtime.engine.tokenizer_pool import TokenizerPool
from encort.runtime.hub.download import open_bundle
from encort.runtime.options import DeviceName, LoadOptions, PrecisionName
from encort.runtime.serving.scheduler import Scheduler
from encort.runtime.serving.service import ServiceContext
from encort.runtime.sessions import SessionOpener, files_to_load
from encort.runtime.task_methods import TaskMethods
from encort.runtime.task_runner import TaskRunner
from encort.runtime.tasks.quantization import typical_ranges
from encort.runtime.tasks.specs import Tasks
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden import check_sample, shortest_sample
from encort.runtime.verification.golden_vectors import Golden


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
        bundle: Folder that `encort export` made; or `"hf://org/name@revision"`, a bundle of the hub, of which the files
            for this device and precision are downloaded, which needs `encort[hub]`; or the URL of a folder in an
            object store, such as `"s3://bucket/my.bundle"`, which needs `encort[store]` and fsspec's package for it.
        device: `"auto"` (the CPU), `"cpu"`, `"cuda"` (the first GPU), `"cuda:1"`, or several as
            `["cuda:0", "cuda:1"]`.
        precision: `"auto"` (the exporter's first choice that this machine can run), `"fp32"`, `"bf16"`, `"int8"`, or on
            GPUs `"fp16"`.
        threads: Cores to use; None: what the affinity mask and the container's quota allow.
        max_length: Most tokens of one input, if fewer than the bundle's own limit: shorter inputs take less time.
        spinning: Let the threads of single texts spin between calls. This lowers the latency of a process that has its
            cores to itself.
        provider: Name of another execution provider of the installed onnxruntime, such as
            `"OpenVINOExecutionProvider"`. It runs the portable graph. None: the device's own provider.
        provider_options: Passed through to the provider.

    Raises:
        BundleError: The folder is not a usable bundle; see `encort.errors` for the cases.
        HubError: The hub cannot be reached, or does not give the bundle.
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
    return load_with(bundle, options)


class Model(TaskMethods):
    """A loaded bundle, for any number of threads.

    Use it as a context manager, or call `close`. A pickled model is loaded again where it is unpickled,
    from its folder; a bundle of the hub from the hub, at its commit.
    """

    def __init__(self, bundle: Bundle, options: LoadOptions) -> None:
        """Open a session, the tokenizer and the threads; see `load`."""
        tokenizer = Tokenizer(bundle.read(TOKENIZER_FILE), max_length=bundle.manifest.max_length)
        # The golden vectors, which sessions are checked with, may be longer than the limit.
        self._sessions = SessionOpener(bundle, options, tokenizer)
        bundle = bundle.limited(options.max_length)
        self._bundle, self._options = bundle, options
        self._variant = self._sessions.variant
        tokenizer = tokenizer.limited(bundle.manifest.max_length)
        cores, gpus = available_cores(), options.gpu_numbers
        self._engine = Engine(
            self._variant,
            self._sessions.open,
            threads=options.threads or cores,
            costs=read_costs(self._costs_file, cuda.COSTS if gpus else Costs()),
            has_all_cores_session=options.execution_provider == CPU_PROVIDER,
            slots=cuda.slots(gpus) if gpus else None,
        )
        pool = TokenizerPool(
            tokenizer,
            self._engine,
            return_offsets=any(head.task.reads_offsets for head in bundle.manifest.heads),
            return_prompt_length=self._variant.reads_prompt_length,
            return_mask_positions=self._variant.reads_mask_position,
            reverse=self._variant.reads_reversed,
            all_cores=options.threads in (None, cores),
        )
        super().__init__(
            pool,
            tokenizer.vocabulary,
            TaskRunner(pool, self._engine),
            Tasks(
                bundle.folder,
                bundle.manifest,
                self._variant,
                tokenizer.subword_marks,
                tokenizer.vocabulary,
                embedding_ranges=lambda: self.embedding_ranges,
            ),
        )

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
    def instruction_set(self) -> str | None:
        """Instruction set of native layers, such as `avx512`; None if ONNX Runtime's own operators run."""
        return kernels_instruction_set() if self._variant.is_native else None

    @property
    def dimension(self) -> int:
        """Number of values of a sentence embedding, unless callers of `embed` ask for another number.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
        """
        return self._tasks.dimensions()

    @cached_property
    def embedding_ranges(self) -> FloatArray:
        """Smallest and largest value of each dimension that int8 embeddings tell apart, `(2, dim)` float32.

        They are the mean plus and minus four standard deviations of the embeddings of the export's sample texts, in
        full precision, which every bundle has.

        Raises:
            WrongTaskError: The bundle has no sentence embeddings.
            BundleError: The file of the sample texts is missing or damaged.
        """
        output = self._tasks.embedding_output(SENTENCE_EMBEDDING)
        return typical_ranges(Golden.load(self._bundle.read(GOLDEN_FILE)).outputs[output])

    def head(self, name: str | None = None, *tasks: Task) -> HeadInfo:
        """Return the head with this name; without a name the first head, for one of the tasks if any are given.

        Raises:
            WrongTaskError: The bundle has no such head.
        """
        return self._tasks.head(name, *tasks)

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
        return ServiceContext(self._tokenizer, self._tasks, scheduler, self.manifest.max_length)

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

    def check_health(self) -> None:
        """Run the shortest golden text and compare the result, as services do that restart what fails.

        Raises:
            FidelityError: The result is not that of the model that was exported.
            ModelClosedError: The model was closed.
        """
        batch, expected = self._golden_sample
        (rows,) = self._engine.run(batch, [self._variant.vector])
        check_sample(self._variant, rows, expected)

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

    def __reduce__(self) -> tuple[Callable[..., "Model"], tuple[str, LoadOptions]]:
        return load_with, (self._bundle.source, self._options)

    @cached_property
    def _golden_sample(self) -> tuple[TokenBatch, FloatArray]:
        return shortest_sample(self._bundle, self._variant)

    @property
    def _costs_file(self) -> Path | None:
        """File of measured costs; None on GPUs, because costs are kept per processor."""
        if self._options.gpu_numbers:
            return None
        return costs_file(self.manifest.files[self._variant.file].sha256, self._options.execution_provider)


def load_with(bundle: str | Path, options: LoadOptions) -> Model:
    """Open a bundle with the options of `load`."""
    return Model(open_bundle(bundle, files=partial(files_to_load, options=options)), options)
