"""One ONNX Runtime session over one variant of a bundle."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from encort.runtime.bundle import Bundle
from encort.runtime.errors import BundleFileChangedError, EncortError
from encort.runtime.manifest import Device, Variant

FloatArray = NDArray[np.float32]

_PROVIDERS = {Device.CPU: "CPUExecutionProvider", Device.CUDA: "CUDAExecutionProvider"}


class Session:
    """Runs one graph; any number of threads may call `run` at the same time.

    The graph was authored for its provider, so ONNX Runtime is asked for basic rewrites only: its extended
    ones fuse Add and LayerNormalization into a kernel that is several times slower on CPU.
    """

    def __init__(self, bundle: Bundle, variant: Variant, *, threads: int) -> None:
        """Load the variant.

        Args:
            threads: Threads of one run.

        Raises:
            BundleFileMissingError: A file is not there.
            BundleFileChangedError: A hash differs, or the graph's names and axes are not the manifest's.
        """
        if variant.weights_file is not None:
            bundle.path(variant.weights_file)
        path = bundle.path(variant.file)
        try:
            self._session = onnxruntime.InferenceSession(
                path, _session_options(threads), providers=[_PROVIDERS[variant.device]]
            )
        except Exception as error:  # onnxruntime's own errors share no narrower parent
            raise BundleFileChangedError(f"ONNX Runtime cannot load {path}: {error}; export it again") from error
        self._inputs = tuple(variant.inputs)
        self._run_options = onnxruntime.RunOptions()
        self._run_options.only_execute_path_to_fetches = True
        _check_axes("input", self._session.get_inputs(), variant.inputs, variant.name)
        _check_axes("output", self._session.get_outputs(), variant.outputs, variant.name)

    def run(self, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        """The named outputs; nodes that only others need are not run.

        Args:
            outputs: Names of the graph's outputs.
            inputs: By name; those that the graph does not have are left out.

        Raises:
            EncortError: ONNX Runtime refused the run.
        """
        feeds = {name: inputs[name] for name in self._inputs}
        try:
            arrays: list[FloatArray] = self._session.run(list(outputs), feeds, self._run_options)
        except Exception as error:  # onnxruntime's own errors share no narrower parent
            shapes = ", ".join(f"{name} {array.shape}" for name, array in feeds.items())
            raise EncortError(f"ONNX Runtime failed on {shapes}: {error}") from error
        return arrays


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Planned buffers fit one shape only; ours change with every run.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


def _check_axes(kind: str, nodes: Sequence[Any], expected: Mapping[str, Sequence[str]], variant: str) -> None:
    found = {node.name: [str(axis) for axis in node.shape] for node in nodes}
    if found != {name: list(axes) for name, axes in expected.items()}:
        raise BundleFileChangedError(
            f"variant {variant}: the graph's {kind}s are {found}, the manifest says {dict(expected)}; export it again"
        )
