import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from encort.export.source.embedding.module_list import ModuleEntry
from encort.export.source.embedding.torch_modules import NormalizeModule, output_size, read_module
from encort.runtime.common.errors import CheckpointError

TANH = "torch.nn.modules.activation.Tanh"


def save(folder: Path, settings: dict[str, Any], **weights: torch.Tensor) -> Path:
    """Save a module; two underscores in the name of a weight stand for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    save_file({name.replace("__", "."): weight for name, weight in weights.items()}, folder / "model.safetensors")
    return folder


def dense(folder: Path, **settings: Any) -> Path:
    config = {"in_features": 3, "out_features": 2, "bias": False, "activation_function": TANH} | settings
    return save(folder, config, linear__weight=torch.arange(6.0).reshape(2, 3))


def read(folder: Path, kind: str = "Dense") -> Any:
    return read_module(ModuleEntry(kind, folder))


def test_a_layer_without_an_activation_has_a_tanh(tmp_path: Path) -> None:
    file = dense(tmp_path) / "config.json"
    settings = json.loads(file.read_text())
    del settings["activation_function"]
    file.write_text(json.dumps(settings))
    expected = torch.tanh(torch.tensor([[1 * 0.0 + 2 * 1, 3.0 + 2 * 4]]))
    torch.testing.assert_close(read(tmp_path)(torch.tensor([[1.0, 2.0, 0.0]])), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precisions_are_taken_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save(
        tmp_path,
        {"in_features": 1, "out_features": 1, "activation_function": TANH},
        linear__weight=torch.full((1, 1), 0.1, dtype=dtype),
        linear__bias=torch.zeros(1, dtype=dtype),
    )
    assert {parameter.dtype for parameter in read(folder).parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_features": None}, "describes no linear layer"),
        ({"in_features": 4}, r"holds {'linear.weight': \[2, 3\]}, and its config.json asks for {.*\[2, 4\]}"),
        ({"in_features": 10**12}, "and its config.json asks for"),
        ({"out_features": -2}, "describes no linear layer"),
        ({"bias": True}, "and its config.json asks for"),
        ({"bias": "no"}, "describes no linear layer"),
        ({"use_residual": True}, "residual.weight"),
        ({"activation_function": "my_module.Swish"}, "activation_function is 'my_module.Swish'"),
        ({"activation_function": "torch.nn.modules.activation.Hardtanh"}, "can only have one of these: torch.nn.Ide"),
        ({"activation_function": "torch.hub.Tanh"}, "activation_function is"),
        ({"activation_function": 1}, "activation_function is 1"),
        ({"module_input_name": "token_embeddings"}, "module_input_name is 'token_embeddings'"),
        ({"module_output_name": "scores"}, "module_output_name is 'scores'"),
    ],
    ids=str,
)
def test_a_layer_that_a_bundle_cannot_hold_is_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(dense(tmp_path, **settings))


def test_a_layer_with_unused_weights_is_refused(tmp_path: Path) -> None:
    weights = {"linear__weight": torch.zeros(2, 3), "gate__weight": torch.zeros(2, 3)}
    with pytest.raises(CheckpointError, match=r"gate.weight"):
        read(save(tmp_path, {"in_features": 3, "out_features": 2, "bias": False}, **weights))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"norm.bias holds NaN or infinity"):
        read(
            save(tmp_path, {"dimension": 1}, norm__weight=torch.ones(1), norm__bias=torch.tensor([torch.nan])),
            "LayerNorm",
        )


def test_a_norm_without_a_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="dimension is None"):
        read(save(tmp_path, {}, norm__weight=torch.ones(1)), "LayerNorm")


@pytest.mark.parametrize("pickled", [True, False])
def test_pickled_weights_are_not_read(pickled: bool, tmp_path: Path) -> None:
    (dense(tmp_path) / "model.safetensors").unlink()
    if pickled:
        (tmp_path / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(CheckpointError, match=r"no model.safetensors;.*save_pretrained") as error:
        read(tmp_path)
    assert ("pickled weights" in str(error.value)) == pickled


def test_a_damaged_file_of_weights_is_refused(tmp_path: Path) -> None:
    (dense(tmp_path) / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"model.safetensors cannot be loaded"):
        read(tmp_path)


def test_modules_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    layer = read(dense(tmp_path))
    assert output_size([layer, NormalizeModule(), torch.nn.LayerNorm(2)], 3) == 2
    for modules, size in (([layer], 4), ([layer, layer], 3), ([layer, torch.nn.LayerNorm(3)], 3)):
        with pytest.raises(CheckpointError, match="takes vectors of 3 values, and gets"):
            output_size(modules, size)


def test_a_wrong_size_leaves_nothing_behind(
    encoder_checkpoint: Path, checkpoint_copy: Callable[[Path], Path], refused: Callable[..., None]
) -> None:
    folder = checkpoint_copy(encoder_checkpoint)
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Dense": "2_Dense"}
    entries = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(entries))
    dense(folder / "2_Dense")
    refused(folder, "Dense takes vectors of 3 values, and gets 40")
