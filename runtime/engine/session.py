"""One ONNX Runtime session over one variant of a bundle."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.kernels import kernels_library
from encort.runtime.bundle.manifest import Device, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import BundleError, BundleFileChangedError, DeviceError, EncortError
from encort.runtime.common.forks import keep_in_children
from encort.runtime.engine.thread_pool import check_grant

# onnxruntime collects telemetry from its import on, on Linux too since 1.31: a database in the user's cache folder, and
# network posts.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
CUDA_MAJOR: str = onnxruntime.cuda_version.partition(".")[0]
"""Major version of CUDA that the installed onnxruntime was built with; empty for a build without CUDA."""
PROVIDERS = {Device.CPU: CPU_PROVIDER, Device.CUDA: CUDA_PROVIDER}

_USE_CPU = 'use device="cpu" and leave provider out'
_FIX_CUDA = f'install "onnxruntime-gpu[cuda,cudnn]" alone, see that nvidia-smi lists the GPU, or {_USE_CPU}'

SPIN_US = "1000"
"""Microseconds that idle threads spin after a run. A run that follows at once does not have to wake them, and a process
without work leaves the cores free."""

_FAILURES: tuple[type[Exception], ...] = (
    *(
        kind
        for kind in vars(onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    *(RuntimeError, ValueError, TypeError, MemoryError),
)
"""Errors of ONNX Runtime, which share no narrower parent than Exception. That one would also catch what the handler of
a signal raises meanwhile, such as the time limit of a task queue."""

TensorSpecs = Mapping[str, tuple[Sequence[int], type[np.generic]]]
"""Shape and dtype of inputs or outputs, by name."""

_NO_GRAPH = -1
"""Value of `gpu_graph_id` for a run that is neither captured nor replayed."""


class Runner(Protocol):
    """A session, or one object that stands for several sessions."""

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """Run one micro-batch and return the named outputs; see `Session.run`."""


class Session:
    """Runs one graph. On CPUs any number of threads may call `run` at the same time, on CUDA one thread.

    The graph was authored for its provider. On CPUs ONNX Runtime does basic rewrites only: its extended rewrites fuse
    Add and LayerNormalization into a kernel that is several times slower there.
    """

    def __init__(
        self,
        graph: GraphFiles,
        variant: Variant,
        *,
        threads: int,
        spinning: bool = False,
        provider: str = CPU_PROVIDER,
        provider_options: Mapping[str, str] | None = None,
    ) -> None:
        """Open the graph.

        Args:
            graph: Files of the graph, from `Bundle.graph`.
            variant: Describes the graph; its inputs and outputs must be the graph's.
            threads: Threads of one run.
            spinning: Let idle threads spin. The next run starts sooner, and other work on these cores is slower.
            provider: ONNX Runtime's name of the execution provider.
            provider_options: Passed through to the provider.

        Raises:
            BundleError: The installed onnxruntime cannot open the graph.
            BundleFileChangedError: The files changed since they were checked, or names or axes of the graph differ
                from the manifest.
            DeviceError: The provider is not installed, or cannot run the whole graph.
            InputError: The system does not grant so many threads.
        """
        if threads > 1:
            check_grant(threads - 1)  # the calling thread is one of them
        options = session_options(variant, threads, spinning=spinning)
        with graph.unchanged() as path:
            self._session = _open(path, options, provider, dict(provider_options or {}))
            self._weights = graph.map_weights()
        self._inputs, self._options = tuple(variant.inputs), _run_options(_NO_GRAPH)
        inputs = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        _check_axes("input", inputs, variant.inputs, variant.name)
        _check_axes("output", self._session.get_outputs(), variant.outputs, variant.name)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """Run the graph and return the named outputs, each float32.

        Args:
            outputs: Names of the graph's outputs.
            inputs: Arrays by name. Inputs that the graph does not have are left out.

        Raises:
            BundleFileChangedError: The file of the weights was overwritten.
            EncortError: ONNX Runtime refused the run.
        """
        feeds = {name: inputs[name] for name in self._inputs}
        self._check_weights()  # a run over a file that was cut would end the process
        with _translated_errors(feeds):
            arrays: list[FloatArray] = self._session.run(list(outputs), feeds, self._options)
        self._check_weights()
        return arrays

    def _check_weights(self) -> None:
        for file in self._weights:
            file.check()

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        """Run the graph and write the named outputs into arrays of the caller.

        Args:
            outputs: A contiguous float32 array for each output, in the shape of the result.
            inputs: See `run`.

        Raises:
            EncortError: ONNX Runtime refused the run, or an output has another shape.
        """
        feeds = {name: inputs[name] for name in self._inputs}
        with _translated_errors(feeds):
            binding = self._session.io_binding()
            for name, array in feeds.items():
                binding.bind_cpu_input(name, array)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding, self._options)

    def bound(self, inputs: TensorSpecs, outputs: TensorSpecs, *, device: tuple[str, int], graph: int) -> "BoundRun":
        """Return a runner for one shape, with inputs and outputs at fixed addresses on a device.

        Args:
            inputs: Shape and dtype of each input.
            outputs: Shape and dtype of each output.
            device: Kind and number of the device, in ONNX Runtime's words, such as `("cuda", 0)`.
            graph: Number of the captured graph, for providers that capture graphs.
        """
        return BoundRun(self._session, inputs, outputs, device=device, graph=graph)


class BoundRun:
    """Runs of one shape, with inputs and outputs at fixed addresses on a device; for one thread."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: TensorSpecs,
        outputs: TensorSpecs,
        *,
        device: tuple[str, int],
        graph: int,
    ) -> None:
        self._session, self._options, self._binding = session, _run_options(graph), session.io_binding()
        keep_in_children(self)
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._inputs = {name: make(shape, dtype, *device) for name, (shape, dtype) in inputs.items()}
        self._outputs = {name: make(shape, dtype, *device) for name, (shape, dtype) in outputs.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """Run the graph and return copies of the named outputs; see `Session.run`."""
        with _translated_errors({name: inputs[name] for name in self._inputs}):
            for name, value in self._inputs.items():
                value.update_inplace(inputs[name])
            self._session.run_with_iobinding(self._binding, self._options)
            # On a CPU, `numpy()` returns the fixed memory itself, which the next run overwrites.
            return [np.array(self._outputs[name].numpy()) for name in outputs]


@contextmanager
def _translated_errors(feeds: Mapping[str, NDArray[Any]]) -> Iterator[None]:
    """Translate errors of ONNX Runtime, with the shapes of the inputs."""
    try:
        yield
    except _FAILURES as error:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
        raise EncortError(f"ONNX Runtime failed on {shapes}: {error}") from error


def _run_options(graph: int) -> onnxruntime.RunOptions:
    """Return options of runs that use the captured graph with this number."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options


def has_device(device: Device) -> bool:
    """Return whether the installed onnxruntime has the device's execution provider."""
    return PROVIDERS[device] in onnxruntime.get_available_providers()


def check_provider(provider: str) -> None:
    """Refuse an execution provider that the installed onnxruntime does not have.

    Raises:
        DeviceError: It is missing; the message lists the providers that exist.
    """
    have = onnxruntime.get_available_providers()
    if provider in have:
        return
    build = "onnxruntime-gpu" if provider == CUDA_PROVIDER else "a build that has it"
    raise DeviceError(
        f"the installed onnxruntime has no {provider}, only {', '.join(have)}; install {build} in its place, "
        f"or {_USE_CPU}"
    )


def _open(
    graph: Path, options: onnxruntime.SessionOptions, provider: str, provider_options: Mapping[str, str]
) -> onnxruntime.InferenceSession:
    check_provider(provider)
    advice = _FIX_CUDA if provider == CUDA_PROVIDER else _USE_CPU
    if provider != CPU_PROVIDER:
        # Without this, ONNX Runtime silently moves nodes that a provider cannot run to the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if provider == CUDA_PROVIDER:
        with redirect_stdout(sys.stderr):
            onnxruntime.preload_dlls()  # from NVIDIA's wheels, if they are installed
        # Enables the kernels that compute bias and activation in one step.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        # Gemm keeps a buffer of ones for its bias. The buffer moves when a run has more tokens, and captured graphs
        # would still read the old address.
        options.add_session_config_entry("optimization.disable_specified_optimizers", "MatMulAddFusion")
    try:
        # No fallback: it would print a message, continue on the CPU, and hide why the provider failed.
        session = onnxruntime.InferenceSession(
            graph, options, providers=[(provider, dict(provider_options))], enable_fallback=0
        )
    except _FAILURES as error:
        if provider != CPU_PROVIDER:
            raise DeviceError(f"{provider} cannot run {graph}: {error}; {advice}") from error
        # The file is the exported one, so this onnxruntime is too old for it, or memory is short.
        raise BundleError(
            f"onnxruntime {onnxruntime.__version__} cannot open {graph}: {error}; "
            "install the version that encort.json names, or export it again"
        ) from error
    keep_in_children(session)
    if session.get_providers()[0] != provider:
        raise DeviceError(f"{provider} could not be started; {advice}, or see what onnxruntime says of it")
    return session


def session_options(variant: Variant, threads: int, *, spinning: bool = False) -> onnxruntime.SessionOptions:
    """Return ONNX Runtime's session options for an authored graph; see `Session`."""
    options = onnxruntime.SessionOptions()
    if variant.is_native:
        options.register_custom_ops_library(str(kernels_library()))
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned buffers fit one shape only; here the shape changes with every run.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    if not spinning:
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_US)
    return options


def _check_axes(kind: str, nodes: Sequence[Any], expected: Mapping[str, Sequence[str]], variant: str) -> None:
    actual = {node.name: [str(axis) for axis in node.shape] for node in nodes}
    if actual != {name: list(axes) for name, axes in expected.items()}:
        raise BundleFileChangedError(
            f"variant {variant}: the graph's {kind}s are {actual}, the manifest says {dict(expected)}; export it again"
        )
