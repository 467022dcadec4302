"""Opens the sessions of a bundle: on the CPU, on GPUs, or on another execution provider."""

import logging
from collections.abc import Sequence

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import GOLDEN_FILE, TOKENIZER_FILE, Device, Variant
from encort.runtime.common.errors import BundleError, FidelityError, VariantNotFoundError
from encort.runtime.cuda import workers as cuda
from encort.runtime.engine.session import Runner, Session, check_provider
from encort.runtime.options import LoadOptions
from encort.runtime.text.tokenizer import Tokenizer
from encort.runtime.verification.golden import check_results
from encort.runtime.verification.tolerance import COSINES

log = logging.getLogger("encort")

_PROOF_TEXTS = 4
"""Golden vectors that a native variant is compared with when it is loaded; `encort verify` takes them all."""


def choose_variant(bundle: Bundle, options: LoadOptions) -> Variant:
    """Return the variant that the options ask for.

    Raises:
        BundleError: The bundle has no such variant.
        DeviceError: This processor cannot run it.
    """
    return bundle.portable() if options.is_portable else bundle.variant(options.device_kind, options.wanted_precision)


def files_to_load(bundle: Bundle, options: LoadOptions) -> list[str]:
    """Return the names of the files that a model with these options reads.

    Raises:
        BundleError: See `choose_variant`.
    """
    variant = choose_variant(bundle, options)
    weights = [] if variant.weights_file is None else [variant.weights_file]
    golden = [GOLDEN_FILE] if GOLDEN_FILE in bundle.manifest.files else []
    return [TOKENIZER_FILE, *golden, variant.file, *weights]


class SessionOpener:
    """Opens sessions over one variant's files. Every session has the same weights: files that changed are refused.

    Attributes:
        variant: The variant that the options ask for.
    """

    def __init__(self, bundle: Bundle, options: LoadOptions, tokenizer: Tokenizer) -> None:
        """Choose the variant and check its files.

        Args:
            bundle: The bundle, with its own limit.
            options: The options of `load`.
            tokenizer: The bundle's tokenizer, with the bundle's own limit; golden texts are read with it.

        Raises:
            BundleError: The bundle has no such variant, or its files changed.
            DeviceError: The installed onnxruntime lacks the execution provider.
        """
        check_provider(options.execution_provider)
        self._bundle, self._options, self._tokenizer = bundle, options, tokenizer
        self._proven: Session | None = None
        self._gpus: cuda.GpuWorkers | None = None
        self.variant = choose_variant(bundle, options)
        self._graph = bundle.graph(self.variant)
        if self.variant.is_native:
            self._prove_native()

    def open(self, threads: int) -> Runner:
        """Open a session with the given number of threads, or one that stands for all GPUs."""
        if self._options.gpu_numbers:
            return self._open_gpus(self._options.gpu_numbers)
        if threads == 1 and self._proven is not None:
            session, self._proven = self._proven, None  # opened already, to prove the variant
            return session
        return self._open_one(threads)

    def warm_up(self) -> None:
        """Capture the graphs of small runs on GPUs; see `Model.warm_up`."""
        if self._gpus is not None:
            self._gpus.warm_up(self._bundle.manifest.max_length)
            self._check(self._gpus.workers)  # the captured graphs too

    def close(self) -> None:
        """Release the GPUs."""
        if self._gpus is not None:
            self._gpus.close()

    def _prove_native(self) -> None:
        """Compare a native variant with the golden vectors; if it fails on this processor, take another variant."""
        least = COSINES[self.variant.precision][1]
        try:
            session = self._open_one(1)
            check_results(
                self._bundle, self.variant, session, self._tokenizer, least_cosine=least, most_texts=_PROOF_TEXTS
            )
            self._proven = session
        except (BundleError, FidelityError) as error:
            failed = self.variant.name
            try:
                self.variant = self._bundle.variant(Device.CPU, self._options.wanted_precision, native=False)
            except VariantNotFoundError:
                raise error from None
            self._graph = self._bundle.graph(self.variant)
            log.warning("%s is not used, %s is: %s", failed, self.variant.name, error)

    def _open_one(self, threads: int) -> Session:
        session = Session(
            self._graph,
            self.variant,
            threads=threads,
            spinning=self._options.spinning,
            provider=self._options.execution_provider,
            provider_options=self._options.provider_options,
        )
        if self._options.is_portable:
            self._check([session])
        return session

    def _open_gpus(self, numbers: Sequence[int]) -> cuda.GpuWorkers:
        max_length = self._bundle.manifest.max_length
        self._gpus = cuda.open_devices(
            self._graph, self.variant, numbers, self._options.provider_options, max_length=max_length
        )
        try:
            self._check(self._gpus.workers)
        except BaseException:
            self._gpus.close()
            raise
        return self._gpus

    def _check(self, sessions: Sequence[Runner]) -> None:
        """Compare with the golden vectors: the export did not run the graph on this kind of device."""
        for session in sessions:
            check_results(self._bundle, self.variant, session, self._tokenizer)
