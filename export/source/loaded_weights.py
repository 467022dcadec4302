"""Check that loading a checkpoint has used all of its weights, and lacked none."""

import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from encort.runtime.bundle.manifest import Task
from encort.runtime.common.checkpoints.weights import is_buffer, shortened
from encort.runtime.common.errors import CheckpointError

_PRETRAINING_CLASSES = (transformers.AutoModelForPreTraining, transformers.AutoModelForMaskedLM)
_EARLIER_PRETRAINING_HEADS = ("lm_predictions.lm_head.", "mask_predictions.")
"""Prefixes of heads that DeBERTa's authors saved, and that no class of transformers has by default."""
_TASKS_AFTER_PRETRAINING = (Task.FEATURE_EXTRACTION, Task.NEXT_SENTENCE_PREDICTION, Task.FILL_MASK)
"""Tasks of checkpoints as they come from pretraining, with the heads of other pretraining tasks."""


@dataclass(frozen=True, kw_only=True)
class LoadedWeights:
    """Names of the weights that a folder and its model do not share.

    Attributes:
        missing: Weights of the model that the folder lacks.
        mismatched: Weights that have another shape in the folder.
        unexpected: Weights of the folder that the model does not have.
        other_classes: Classes of transformers that `config.json` names too; the folder may have their heads.
    """

    missing: Sequence[str]
    mismatched: Sequence[str]
    unexpected: Sequence[str]
    other_classes: Sequence[str] = ()

    def check(self, folder: Path, model: Any, task: Task) -> None:
        """Refuse a model whose results would not be those of the folder's weights.

        An embedding model may lack its pooler, as encoders from masked language models do. It then gets none.

        Raises:
            CheckpointError: Weights are missing, have other shapes, or are not used.
        """
        missing = [name for name in self.missing if not is_buffer(name)]
        lacks_pooler = task is Task.FEATURE_EXTRACTION and set(missing) == _pooler_weights(model)
        lacking = [*([] if lacks_pooler else missing), *self.mismatched]
        if lacking:
            others = [name for name in self.unexpected if not is_buffer(name)]
            found = f"; it has others in their place: {shortened(others)}; rename these, or" if others else ";"
            raise CheckpointError(
                f"{folder} lacks weights of its own architecture: {shortened(lacking)}{found} save the whole model"
            )
        unused = self._unused(model, task)
        if unused:
            raise CheckpointError(
                f"{folder} has weights that {type(model).__name__} does not use, so that the bundle would give other "
                f'results: {shortened(unused)}. If a class of transformers saved them, name it in "architectures" in '
                "config.json; a class of your own cannot be exported. For embeddings without these weights, save the "
                "encoder alone (model.base_model.save_pretrained)"
            )
        if lacks_pooler and missing:
            model.base_model.pooler = None

    def _unused(self, model: Any, task: Task) -> list[str]:
        """Return the unexpected weights that are not known to be of no use for the task."""
        prefix = f"{getattr(model, 'base_model_prefix', '')}."
        names = {name: name.removeprefix(prefix) for name in self.unexpected if not is_buffer(name)}
        if not names:
            return []
        harmless = _weights_of(transformers.AutoModel.from_config, model.config, part="pooler.")
        for class_name in self.other_classes:
            if hasattr(transformers, class_name):
                harmless |= _weights_of(getattr(transformers, class_name), model.config)
        others: tuple[str, ...] = ()
        if task in _TASKS_AFTER_PRETRAINING:
            others = _EARLIER_PRETRAINING_HEADS
            for auto_class in _PRETRAINING_CLASSES:
                harmless |= _weights_of(auto_class.from_config, model.config)
        return [name for name, own in names.items() if own not in harmless and not own.startswith(others)]


def _pooler_weights(model: Any) -> set[str]:
    """Return the names of the weights of the model's pooler; none if it has no pooler."""
    return {name for name, _ in model.named_parameters() if "pooler." in name}


def _weights_of(make: Callable[[Any], Any], config: Any, *, part: str = "") -> set[str]:
    """Return the names of weights outside of the encoder, or of one part of it; none if there is no such class.

    Args:
        make: Makes the model of transformers from its settings.
        config: Settings of the model.
        part: Prefix of the names in the encoder.
    """
    with contextlib.suppress(ValueError), torch.device("meta"):
        model = make(config)
        names: Collection[str] = model.state_dict().keys()
        outside = f"{model.base_model_prefix}."
        return {name for name in names if (name.startswith(part) if part else not name.startswith(outside))}
    return set()
