"""Read the activation function that a `CrossEncoder` of sentence-transformers applies to its logits."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.runtime.bundle.manifest import Activation, Task
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_FILE = "config_sentence_transformers.json"
_OLD_SETTING = "sbert_ce_default_activation_function"
_CLASSIFIERS = (Task.TEXT_CLASSIFICATION, Task.MULTI_LABEL_CLASSIFICATION, Task.TEXT_REGRESSION)
_ACTIVATIONS = {"Identity": Activation.IDENTITY, "Sigmoid": Activation.SIGMOID, "Tanh": Activation.TANH}
"""Activations of one label, by the name of their class in torch."""
_OF_SEVERAL = {
    "Sigmoid": (Task.MULTI_LABEL_CLASSIFICATION, Activation.SIGMOID),
    "Softmax": (Task.TEXT_CLASSIFICATION, Activation.SOFTMAX),
}
"""Activations of several labels, and the tasks whose probabilities they are, by the name of their class in torch."""


def cross_encoder_head(folder: Path, config: Any, task: Task) -> tuple[Task, Activation | None]:
    """Return the task of a head, and the activation of its logits, so that results are those of `CrossEncoder`.

    The activation is None if nothing says that the checkpoint is a `CrossEncoder`.

    Args:
        folder: Folder of the checkpoint.
        config: Settings, of transformers.
        task: Task of the head by its settings alone.

    Raises:
        CheckpointError: The activation is unknown, or cannot be used with this number of labels; or there is a default
            prompt.
    """
    if task not in _CLASSIFIERS:
        return task, None
    settings = read_json(folder / _FILE, dict) if (folder / _FILE).exists() else {}
    in_config = getattr(config, "sentence_transformers", None) or {}
    if not isinstance(in_config, dict):
        raise CheckpointError(f"{folder}: sentence_transformers in config.json is {in_config!r}, expected settings")
    if settings.get("model_type") == "CrossEncoder" and settings.get("default_prompt_name") is not None:
        raise CheckpointError(
            f"{folder / _FILE} puts the prompt {settings['default_prompt_name']!r} before pairs, which a bundle cannot "
            "do; set default_prompt_name to null, and put the prompt before the first texts yourself"
        )
    name = _activation(folder, settings, in_config, config)
    if name is None and settings.get("model_type") != "CrossEncoder" and not in_config:
        return task, None
    if config.num_labels == 1:
        name = name or "Sigmoid"
        _check_known(folder, name, _ACTIVATIONS)
        return Task.TEXT_REGRESSION, _ACTIVATIONS[name]
    name = name or "Identity"
    _check_known(folder, name, {"Identity": task, **_OF_SEVERAL})
    return _OF_SEVERAL.get(name, (task, Activation.IDENTITY))


def _activation(folder: Path, settings: Mapping[str, Any], in_config: Mapping[str, Any], config: Any) -> str | None:
    """Return the name of the class of the activation; None if no file names one."""
    paths = [settings.get("activation_fn"), in_config.get("activation_fn"), getattr(config, _OLD_SETTING, None)]
    path = next((path for path in paths if path is not None), None)
    if path is None:
        return None
    if not isinstance(path, str) or not path.startswith("torch."):
        raise CheckpointError(
            f"{folder} applies {path!r} to its logits, which is code of its own; encort knows functions of torch: "
            f"torch.nn.{', torch.nn.'.join(_ACTIVATIONS)}"
        )
    return path.rpartition(".")[2]


def _check_known(folder: Path, name: str, known: Mapping[str, Any]) -> None:
    if name not in known:
        raise CheckpointError(
            f"{folder} applies the activation {name} to its logits, which encort cannot do for this number of labels; "
            f"set activation_fn to one of these: torch.nn.{', torch.nn.'.join(known)}"
        )
