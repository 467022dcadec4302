"""Whole models on fake GPUs, which run on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

import encort
from encort.export.verification.cpu_attention import open_to_verify
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Device, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import DeviceError, FidelityError, InputError
from encort.runtime.cuda import workers as cuda
from encort.runtime.cuda.workers import GpuWorker, GpuWorkers
from encort.runtime.engine.session import CUDA_PROVIDER, PROVIDERS
from encort.runtime.options import LoadOptions

TEXTS = ["hello", "my card is lost", "", "change the pin, my pin is lost! " * 20, "안녕하세요"]

Opened = tuple[str, list[int], dict[str, str]]
"""Graph, devices and provider options of a call of `open_devices`."""


@pytest.fixture
def gpus(cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[Opened]:
    """Two GPUs, with the CPU in their place; the list tells what was opened."""
    bundle, opened = Bundle.open(cuda_bundle), list[Opened]()

    def open_devices(
        graph: GraphFiles, variant: Variant, devices: Sequence[int], options: Mapping[str, str], **_: Any
    ) -> GpuWorkers:
        opened.append((graph.path.name, list(devices), dict(options)))
        session = open_to_verify(bundle, variant).workers[0]._session
        return GpuWorkers(variant, lambda _: session, devices)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA_PROVIDER, "CPUExecutionProvider"])
    monkeypatch.setattr(cuda, "open_devices", open_devices)
    return opened


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-5), ("fp16", 0.02), ("auto", 0.02)])
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:0,1"])
def test_a_model_on_gpus_returns_what_it_returns_on_the_cpu(
    cuda_bundle: Path, gpus: list[Opened], device: str, precision: str, tolerance: float
) -> None:
    with (
        encort.load(cuda_bundle, precision="fp32") as cpu,
        encort.load(cuda_bundle, device=device, precision=precision, provider_options={"gpu_mem_limit": "1"}) as gpu,
    ):
        assert gpu.variant.device is Device.CUDA
        np.testing.assert_allclose(gpu.embed(TEXTS), cpu.embed(TEXTS), atol=tolerance)
        for vectors, expected in zip(gpu.embed_tokens(TEXTS), cpu.embed_tokens(TEXTS), strict=True):
            np.testing.assert_allclose(vectors, expected, atol=20 * tolerance if tolerance < 0.01 else 0.1)
        assert [result.label for result in gpu.classify(TEXTS)] == [result.label for result in cpu.classify(TEXTS)]
        with gpu.serving() as service:
            for text, expected in zip(TEXTS, cpu.embed(TEXTS), strict=True):
                np.testing.assert_allclose(service.embed(text), expected, atol=tolerance)
    numbers = {"cuda": [0], "cuda:1": [1], "cuda:0,1": [0, 1]}[device]
    assert gpus == [(f"cuda-{'fp16' if precision == 'auto' else precision}.onnx", numbers, {"gpu_mem_limit": "1"})]


@pytest.mark.usefixtures("gpus")
def test_texts_of_all_lengths_share_one_run(cuda_bundle: Path) -> None:
    with encort.load(cuda_bundle, device="cuda") as model:
        model.embed(TEXTS)
        assert model.stats().runs == 1


@pytest.mark.usefixtures("gpus")
def test_a_device_with_wrong_results_is_refused(cuda_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = GpuWorker.run

    def run_wrongly(self: GpuWorker, outputs: Sequence[str], inputs: Mapping[str, NDArray[Any]]) -> list[FloatArray]:
        return [np.roll(array, 1, axis=-1) for array in run(self, outputs, inputs)]

    monkeypatch.setattr(GpuWorker, "run", run_wrongly)
    with pytest.raises(FidelityError, match="is not the model that was exported"):
        encort.load(cuda_bundle, device="cuda")


def test_asking_for_a_gpu_without_one_is_an_error(cuda_bundle: Path) -> None:
    with pytest.raises(DeviceError, match=r"no CUDAExecutionProvider.* install onnxruntime-gpu"):
        encort.load(cuda_bundle, device="cuda:1")


@pytest.mark.parametrize("device", ["cuda:", "cuda:x", "cuda:-1", "cuda:0,", "cpu:0", "cuda:1.5", "tpu:0", ":1"])
def test_a_malformed_device_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="device must be"):
        LoadOptions(device=device)


def test_a_device_that_is_named_twice_is_opened_once() -> None:
    assert LoadOptions(device="cuda:2,0,2").gpu_numbers == [2, 0]
    assert LoadOptions(device="cuda").gpu_numbers == [0]
    assert LoadOptions().gpu_numbers == LoadOptions(device="cpu").gpu_numbers == []
    assert LoadOptions(device="cuda:1").execution_provider == PROVIDERS[Device.CUDA]
