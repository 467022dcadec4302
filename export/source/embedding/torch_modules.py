"""Modules after the pooling, as PyTorch modules that are read from their folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from encort.export.graph.description import Dense, LayerNorm, Linear, SentenceModule, UnitNorm
from encort.export.graph.sentence import ACTIVATIONS
from encort.export.source.embedding.module_list import ModuleEntry
from encort.runtime.common.checkpoints.files import check_files, read_json
from encort.runtime.common.errors import CheckpointError

_EMBEDDING, _TOKENS = "sentence_embedding", "token_embeddings"
"""Names that sentence-transformers gives the pooled vector and the vectors of tokens."""
_ACTIVATION_PACKAGE = "torch.nn."


class DenseModule(torch.nn.Module):
    """A linear layer, an activation, and the sum with the input, projected if its size differs."""

    def __init__(self, linear: torch.nn.Linear, activation: torch.nn.Module, residual: torch.nn.Module | None) -> None:
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors `(batch, out)` for vectors `(batch, in)`."""
        result: torch.Tensor = self.activation(self.linear(x))
        return result if self.residual is None else result + self.residual(x)


class NormalizeModule(torch.nn.Module):
    """Scale vectors to length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return vectors `(..., size)` of length 1."""
        return torch.nn.functional.normalize(x, dim=-1)


def read_module(entry: ModuleEntry, *, of_tokens: bool = False) -> torch.nn.Module:
    """Return a module in `eval()` and float32, after the pooling or, of a model of token vectors, on its tokens.

    Raises:
        CheckpointError: Its files are damaged, or it does something that a bundle cannot do.
    """
    file = entry.folder / "config.json"
    settings = read_json(file, dict) if file.exists() else {}
    expected = _TOKENS if of_tokens else _EMBEDDING
    for name in ("module_input_name", "module_output_name"):
        if settings.get(name) not in (None, expected):
            raise CheckpointError(f"{file}: {name} is {settings[name]!r}, and a bundle can only have {expected!r}")
    if entry.kind == "Dense":
        return _dense(file, settings).eval()
    return (_layer_norm(file, settings) if entry.kind == "LayerNorm" else NormalizeModule()).eval()


def describe_modules(modules: Sequence[torch.nn.Module], prefix: str = "sentence") -> tuple[SentenceModule, ...]:
    """Return neutral descriptions of the modules, whose weights' names have this prefix."""
    return tuple(_describe(module, f"{prefix}.{index}") for index, module in enumerate(modules))


def output_size(modules: Sequence[torch.nn.Module], size: int) -> int:
    """Return the size of the vectors that the modules give for vectors of this size.

    Raises:
        CheckpointError: A module takes vectors of another size.
    """
    for module in modules:
        expected = size
        if isinstance(module, DenseModule):
            expected = module.linear.in_features
        elif isinstance(module, torch.nn.LayerNorm):
            expected = module.normalized_shape[0]
        if expected != size:
            kind = type(module).__name__.removesuffix("Module")
            raise CheckpointError(
                f"the module {kind} takes vectors of {expected} values, and gets {size}; save the model again, or "
                "choose the pooling that it was trained with (--pooling)"
            )
        size = module.linear.out_features if isinstance(module, DenseModule) else size
    return size


def _dense(file: Path, settings: dict[str, Any]) -> DenseModule:
    sizes = [settings.get(name) for name in ("out_features", "in_features")]
    has_bias, is_residual = settings.get("bias", True), settings.get("use_residual", False)
    if not all(type(size) is int and size > 0 for size in sizes) or {type(has_bias), type(is_residual)} != {bool}:
        raise CheckpointError(f"{file} describes no linear layer; save the model again")
    shapes = {"linear.weight": sizes}
    if has_bias:
        shapes["linear.bias"] = sizes[:1]
    if is_residual and sizes[0] != sizes[1]:
        shapes["residual.weight"] = sizes
    weights = _weights(file.parent, shapes)
    residual: torch.nn.Module | None = torch.nn.Identity() if is_residual else None
    if "residual.weight" in weights:
        residual = _linear(weights["residual.weight"], None)
    return DenseModule(
        _linear(weights["linear.weight"], weights.get("linear.bias")), _activation(file, settings), residual
    )


def _linear(weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    linear.load_state_dict(state, assign=True)
    return linear


def _layer_norm(file: Path, settings: dict[str, Any]) -> torch.nn.LayerNorm:
    size = settings.get("dimension")
    if type(size) is not int or size < 1:
        raise CheckpointError(f"{file}: dimension is {size!r}, expected a whole number above 0")
    weights = _weights(file.parent, {"norm.weight": [size], "norm.bias": [size]})
    norm = torch.nn.LayerNorm(size, device="meta")
    norm.load_state_dict({name.removeprefix("norm."): weight for name, weight in weights.items()}, assign=True)
    return norm


def _activation(file: Path, settings: dict[str, Any]) -> torch.nn.Module:
    # sentence-transformers takes this one if the setting is missing.
    path = settings.get("activation_function", "torch.nn.modules.activation.Tanh")
    name = str(path).rpartition(".")[2]
    if not str(path).startswith(_ACTIVATION_PACKAGE) or name not in ACTIVATIONS:
        raise CheckpointError(
            f"{file}: activation_function is {path!r}, and a bundle can only have one of these: "
            f"{', '.join(_ACTIVATION_PACKAGE + known for known in ACTIVATIONS)}"
        )
    activation: torch.nn.Module = getattr(torch.nn, name)()
    return activation


def _weights(folder: Path, shapes: dict[str, list[Any]]) -> dict[str, torch.Tensor]:
    """Return the weights of a folder as float32, which must have exactly these names and shapes."""
    file = folder / "model.safetensors"
    check_files(folder)
    if not file.is_file():
        pickled = " it has pickled weights, which can run code when they are loaded;"
        raise CheckpointError(
            f"{folder} has no model.safetensors;{pickled if (folder / 'pytorch_model.bin').exists() else ''} load the "
            "model with sentence-transformers and save_pretrained it again"
        )
    try:
        weights = {name: tensor.float() for name, tensor in load_file(file).items()}
    except Exception as error:  # safetensors raises errors of its own
        raise CheckpointError(f"{file} cannot be loaded: {error}") from error
    found = {name: list(weight.shape) for name, weight in weights.items()}
    if found != shapes:
        raise CheckpointError(f"{file} holds {found}, and its config.json asks for {shapes}; save the model again")
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"{file}: {name} holds NaN or infinity; the training diverged, train again")
    return weights


def _describe(module: torch.nn.Module, name: str) -> SentenceModule:
    if isinstance(module, DenseModule):
        projects = isinstance(module.residual, torch.nn.Linear)
        return Dense(
            linear=describe_linear(module.linear, f"{name}.linear"),
            activation=type(module.activation).__name__,
            adds_input=module.residual is not None,
            projection=describe_linear(module.residual, f"{name}.residual") if projects else None,
        )
    if isinstance(module, torch.nn.LayerNorm):
        weight, bias = module.weight.detach().numpy(), module.bias.detach().numpy()
        return LayerNorm(name=name, weight=weight, bias=bias, epsilon=module.eps)
    return UnitNorm()


def describe_linear(layer: Any, name: str) -> Linear:
    """Return a neutral description of a linear layer."""
    # torch stores (out, in), the description has (in, out).
    weight = layer.weight.detach().T.contiguous()
    bias = torch.zeros(weight.shape[1]) if layer.bias is None else layer.bias.detach()
    return Linear(name=name, weight=weight.numpy(), bias=bias.numpy())
