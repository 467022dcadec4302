"""Merge the adapter of a task that a checkpoint holds in its own weights, as jina-embeddings-v3 does.

Its embeddings and linear layers are `original` weights, with a low-rank change (LoRA) for each task.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from encort.runtime.common.errors import CheckpointError, InputError

_ORIGINAL = ".parametrizations.weight.original"
_CHANGES = (".parametrizations.weight.0.lora_A", ".parametrizations.weight.0.lora_B")


def adapter_names(config: Any) -> list[str]:
    """Return the names of the tasks that the checkpoint has adapters for; none for other checkpoints."""
    return list(getattr(config, "lora_adaptations", None) or ())


def check_adapter(name: str, config: Any, adapter: str | None) -> None:
    """Refuse an adapter that the checkpoint does not have.

    Raises:
        InputError: There is no such adapter.
    """
    names = adapter_names(config)
    if adapter is not None and adapter not in names:
        known = ", ".join(names) or "none in its own weights; a folder of PEFT is merged without this option"
        raise InputError(f"{name} has no adapter {adapter!r}; it has {known}")


def merged_weights(folder: Path, files: Sequence[Path], config: Any, adapter: str | None) -> dict[str, torch.Tensor]:
    """Return the weights by the names that they have without adapters.

    Args:
        folder: Checkpoint, for messages.
        files: Files with its weights.
        config: Its settings.
        adapter: Task whose adapter is merged; None merges none, which is the general model.

    Raises:
        CheckpointError: The checkpoint lacks weights of the adapter, or they have other shapes.
    """
    stored = {name: weight for file in files for name, weight in load_file(file).items()}
    merged = {}
    for name, weight in stored.items():
        module, is_original, _ = name.partition(_ORIGINAL)
        if name.endswith(_CHANGES):
            continue
        if is_original and adapter is not None:
            try:
                merged[f"{module}.weight"] = weight.float() + _change(stored, module, config, adapter)
            except (KeyError, IndexError, RuntimeError) as error:
                raise CheckpointError(f"{folder}: the adapter {adapter!r} does not fit {module}: {error}") from error
        else:
            merged[f"{module}.weight" if is_original else name] = weight
    return merged


def _change(stored: Mapping[str, torch.Tensor], module: str, config: Any, adapter: str) -> torch.Tensor:
    """Return what the adapter adds to the weight of a module."""
    number = adapter_names(config).index(adapter)
    first, second = (stored[module + name][number].float() for name in _CHANGES)
    # Embeddings are (rows, out), linear layers (out, in).
    product = first @ second if module.endswith("embeddings") else second @ first
    return product * float(config.lora_alpha / config.lora_rank)
