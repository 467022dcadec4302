"""Merge an adapter of PEFT into the model that it was trained on."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from encort.export.source.loaded_weights import LoadedWeights
from encort.runtime.common.checkpoints.files import check_files, read_json
from encort.runtime.common.checkpoints.hub import locate
from encort.runtime.common.checkpoints.weights import shortened
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.extras import require

_FILE = "adapter_config.json"
_WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
"""Prefix of the names of weights in an adapter."""
MERGED_KINDS = (
    *("LORA", "ADALORA", "DELORA", "RANDLORA", "VERA", "VBLORA", "LOHA", "LOKR"),
    *("BOFT", "C3A", "FOURIERFT", "HRA", "IA3", "LN_TUNING", "MISS", "OFT", "ROAD", "SHIRA", "WAVEFT"),
)
"""Kinds of adapters that are merged, by PEFT's names (`peft_type`).

The constructors of some other kinds read files that `adapter_config.json` names anywhere on the machine, also pickled
ones.
"""
_HEADS: Mapping[str, Mapping[str, str]] = {
    "SEQ_CLS": transformers.models.auto.modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "TOKEN_CLS": transformers.models.auto.modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    "QUESTION_ANS": transformers.models.auto.modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
}
"""Classes of heads by PEFT's name of the task and by the architecture."""
_LOGITS = ("classifier.weight", "classifier.out_proj.weight")
"""Ends of the names of the layers that give logits of labels."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Adapter:
    """An adapter that was trained on a base model.

    Attributes:
        folder: Folder of the adapter.
        base: Folder of its base model.
        settings: Content of `adapter_config.json`.
        weights: Its weights, by their names in the base model with PEFT's additions.
    """

    folder: Path
    base: Path
    settings: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]

    @classmethod
    def read(cls, folder: Path) -> "Adapter | None":
        """Read the adapter in a folder; None if there is none.

        Raises:
            CheckpointError: The adapter is damaged, has pickled weights, or is of a kind that is not merged; or its
                base model is not there.
            MissingExtraError: PEFT is not installed.
        """
        file = folder / _FILE
        if not file.exists():
            return None
        require(f"to merge the adapter {folder}, encort", "peft", "peft")
        check_files(folder)
        settings = read_json(file, dict)
        _check_kind(file, settings)
        base = settings.get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise CheckpointError(f"{file} names no base model in base_model_name_or_path")
        try:
            located, _ = locate(base, settings.get("revision"))
        except CheckpointError as error:
            raise CheckpointError(f"{file}: base_model_name_or_path: {error}; set it to the base model") from error
        return cls(folder=folder, base=located, settings=settings, weights=_weights(folder))

    @property
    def config_folder(self) -> Path:
        """Folder with `config.json`: that of the adapter if it has one, else that of the base model."""
        return self.folder if (self.folder / "config.json").exists() else self.base

    @property
    def tokenizer_folder(self) -> Path:
        """Folder with the tokenizer: that of the adapter if it has one, else that of the base model."""
        return self.folder if (self.folder / "tokenizer_config.json").exists() else self.base

    def complete(self, config: Any) -> None:
        """Set the class of the head and the number of its labels, which PEFT does not save.

        Args:
            config: Settings in `config_folder`, of transformers.
        """
        classes = _HEADS.get(str(self.settings.get("task_type")), {})
        if config.model_type not in classes:
            return
        config.architectures = [classes[config.model_type]]
        counts = [weight.shape[0] for name, weight in self.weights.items() if name.endswith(_LOGITS)]
        if counts and counts[0] != config.num_labels:
            config.num_labels = counts[0]

    def merge(self, model: Any, loaded: LoadedWeights) -> tuple[Any, LoadedWeights]:
        """Return the model with the adapter merged, and the names of weights without those that the adapter holds.

        Raises:
            CheckpointError: The adapter cannot be merged, or was trained on another model.
        """
        import peft

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of missing weights, which are an error below
                adapted = peft.PeftModel.from_pretrained(model, str(self.folder))
        except Exception as error:  # PEFT and torch raise errors of several kinds
            raise CheckpointError(f"{self.folder} does not fit its base model {self.base}: {error}") from error
        self._check_weights(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
        try:
            merged = adapted.merge_and_unload(safe_merge=True)
        except Exception as error:  # PEFT and torch raise errors of several kinds
            raise CheckpointError(f"{self.folder} cannot be merged into its base model: {error}") from error
        held = {name.removeprefix(_PREFIX) for name in self.weights}
        return merged, replace(loaded, missing=[name for name in loaded.missing if name not in held])

    def _check_weights(self, used: Mapping[str, torch.Tensor]) -> None:
        """Refuse an adapter some of whose weights were not used, or that lacks weights."""
        wrong = sorted(used.keys() ^ self.weights.keys())
        if wrong:
            raise CheckpointError(
                f"{self.folder} does not fit its base model {self.base}: it has other weights, such as "
                f"{shortened(wrong)}; set base_model_name_or_path to the model that it was trained on"
            )


def _check_kind(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse kinds of adapters that are not merged, before PEFT reads their settings."""
    kind = settings.get("peft_type")
    if kind not in MERGED_KINDS:
        raise CheckpointError(
            f"{file}: peft_type is {kind!r}, a kind that encort does not merge; it merges kinds that change the "
            f"weights of layers: {', '.join(sorted(MERGED_KINDS))}"
        )
    if settings.get("megatron_config"):
        raise CheckpointError(f"{file} asks for Megatron, whose models encort does not know")


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    file = folder / _WEIGHTS_FILE
    if not file.is_file():
        raise CheckpointError(
            f"{folder} has no {_WEIGHTS_FILE}; pickled weights are not read, because they can run code: load the "
            "adapter with PEFT and save_pretrained it again"
        )
    try:
        return dict(load_file(file))
    except Exception as error:  # safetensors raises errors of its own
        raise CheckpointError(f"{file} cannot be loaded: {error}") from error
