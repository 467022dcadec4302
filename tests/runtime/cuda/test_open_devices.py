"""Opening a CUDA device: the options that ONNX Runtime is given, and the errors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest

from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.errors import DeviceError
from encort.runtime.cuda import workers as cuda
from encort.runtime.cuda.cuda_graphs import CapturedSession
from encort.runtime.engine.session import CUDA_PROVIDER


@pytest.fixture
def packed_graph(cuda_bundle: Path) -> tuple[GraphFiles, Variant]:
    bundle = Bundle.open(cuda_bundle)
    variant = next(variant for variant in bundle.manifest.variants if variant.name == "cuda-fp32")
    return bundle.graph(variant), variant


@pytest.fixture
def runtime(packed_graph: tuple[GraphFiles, Variant], monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """An onnxruntime with CUDA that writes down how a session is opened; it raises `runtime.error` if that is set."""
    _, variant = packed_graph
    seen = SimpleNamespace(error=None)

    class InferenceSession:
        def __init__(self, graph: Path, options: Any, *, providers: list[Any], enable_fallback: int) -> None:
            if seen.error is not None:
                raise RuntimeError(seen.error)
            seen.graph, seen.options, seen.fallback = graph, options, enable_fallback
            ((seen.provider, seen.provider_options),) = providers

        def get_providers(self) -> list[str]:
            return [CUDA_PROVIDER, "CPUExecutionProvider"]

        def get_inputs(self) -> list[SimpleNamespace]:
            return [SimpleNamespace(name=name, shape=axes) for name, axes in variant.inputs.items()]

        def get_overridable_initializers(self) -> list[SimpleNamespace]:
            return []

        def get_outputs(self) -> list[SimpleNamespace]:
            return [
                SimpleNamespace(name=name, shape=[int(axis) if axis.isdecimal() else axis for axis in axes])
                for name, axes in variant.outputs.items()
            ]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", InferenceSession)
    return seen


def test_a_device_is_opened_with_exact_arithmetic_and_bounded_memory(
    packed_graph: tuple[GraphFiles, Variant], runtime: SimpleNamespace
) -> None:
    graph, variant = packed_graph
    opened = cuda.open_devices(graph, variant, [3], {"gpu_mem_limit": "9", "use_tf32": "1"}, max_length=64)
    assert isinstance(opened.workers[0]._session, CapturedSession)
    opened.close()
    assert (runtime.graph, runtime.provider, runtime.fallback) == (graph.path, CUDA_PROVIDER, 0)
    assert runtime.provider_options == {
        "arena_extend_strategy": "kSameAsRequested",
        "device_id": "3",
        "enable_cuda_graph": "1",
        "enable_skip_layer_norm_strict_mode": "1",
        "gpu_mem_limit": "9",
        "sdpa_kernel": "3",
        "use_tf32": "1",  # the user's own
    }
    assert cuda.PROVIDER_OPTIONS["use_tf32"] == "0"
    entry = runtime.options.get_session_config_entry
    assert entry("session.disable_cpu_ep_fallback") == "1"
    assert entry("optimization.disable_specified_optimizers") == "MatMulAddFusion"
    assert runtime.options.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


@pytest.mark.usefixtures("runtime")
def test_captured_graphs_can_be_switched_off(packed_graph: tuple[GraphFiles, Variant]) -> None:
    opened = cuda.open_devices(*packed_graph, [0], {"enable_cuda_graph": "0"}, max_length=64)
    assert not isinstance(opened.workers[0]._session, CapturedSession)
    opened.close()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            "libcudnn.so.9: cannot open",
            r'install "onnxruntime-gpu\[cuda,cudnn\]" alone, .*nvidia-smi',
        ),
        ("Failed to allocate memory for requested buffer of size 9", "GPU 3 has no memory for the model: free some"),
    ],
)
def test_an_error_of_opening_a_device_says_what_to_do(
    packed_graph: tuple[GraphFiles, Variant], runtime: SimpleNamespace, error: str, message: str
) -> None:
    runtime.error = error
    with pytest.raises(DeviceError, match=message):
        cuda.open_devices(*packed_graph, [3], {}, max_length=64)
