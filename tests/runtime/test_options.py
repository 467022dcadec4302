"""The options of `load` are checked before anything is opened."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

import encort
from encort.runtime.common.errors import DeviceError, InputError, InputTypeError
from encort.runtime.options import LoadOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda; got 'tpu'"),
        ({"device": "CPU"}, "device must be one of"),
        ({"device": None}, "device must be one of"),
        ({"precision": "fp64"}, "precision must be one of auto, fp32, fp16, bf16, int8; got 'fp64'"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"threads": -1}, "threads must be at least 1, got -1"),
        ({"threads": 1025}, "threads must be at most 1024, got 1025"),
        ({"threads": 2**31}, "threads must be at most 1024, got 2147483648"),
        ({"threads": 10**30}, "threads must be at most 1024, got 10"),
    ],
    ids=str,
)
def test_an_unknown_value_of_an_option_lists_the_known_values(
    classifier_bundle: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        encort.load(classifier_bundle, **options)


@pytest.mark.parametrize("threads", ["2", 2.0, 1.5, float("nan"), True, np.True_, np.float32(2), np.array(2), [2]])
def test_threads_must_be_a_whole_number(classifier_bundle: Path, threads: Any) -> None:
    with pytest.raises(InputTypeError, match="threads must be a whole number, got"):
        encort.load(classifier_bundle, threads=threads)


def test_threads_may_be_a_numpy_integer(classifier_bundle: Path) -> None:
    threads: Any = np.int64(2)
    with encort.load(classifier_bundle, threads=threads) as model:
        assert model.embed(["hello", "my card is lost"]).shape == (2, 40)
    assert type(LoadOptions(threads=threads).threads) is int  # small integers of numpy overflow


def test_options_are_keyword_only(classifier_bundle: Path) -> None:
    load: Any = encort.load
    with pytest.raises(TypeError):
        load(classifier_bundle, "cpu")


def test_cuda_without_its_provider_is_an_error(classifier_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        DeviceError, match="has no CUDAExecutionProvider, only CPUExecutionProvider; install onnxruntime-gpu"
    ):
        encort.load(classifier_bundle, device="cuda")
