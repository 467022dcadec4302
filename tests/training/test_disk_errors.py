"""A full disk is one error, whichever library writes."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from encort.runtime.common.errors import InputError
from encort.training.disk_errors import translated_disk_errors

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="needs a device that is always full")
@pytest.mark.parametrize(
    "write",
    [
        lambda tensors: save_file(tensors, FULL / "in"),
        lambda tensors: torch.save(tensors, FULL),
    ],
    ids=["safetensors", "torch"],
)
def test_a_failed_write_names_the_output(write: Callable[[dict[str, torch.Tensor]], None]) -> None:
    with pytest.raises(InputError, match="checkpoint cannot be written"), translated_disk_errors(Path("checkpoint")):
        write({"weights": torch.zeros(100_000)})


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"), translated_disk_errors(Path("checkpoint")):
        raise RuntimeError("shapes differ")
