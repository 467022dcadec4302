"""Load the parts of a checkpoint in eager PyTorch, and refuse damaged or unsafe folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open

from encort.export.source.adapters import Adapter
from encort.export.source.dual_encoder import MODEL_TYPE, DualEncoderModule, dual_encoder_config, load_dual_encoder
from encort.export.source.loaded_weights import LoadedWeights
from encort.export.source.task_adapters import adapter_names, merged_weights
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.checkpoints.config import check_parameters, make_config, read_settings
from encort.runtime.common.checkpoints.majors import mismatched_names
from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.checkpoints.weights import weight_files
from encort.runtime.common.errors import CheckpointError

_HEADS: Mapping[str, tuple[Task, Any]] = {
    "ForSequenceClassification": (Task.TEXT_CLASSIFICATION, transformers.AutoModelForSequenceClassification),
    "ForTokenClassification": (Task.TOKEN_CLASSIFICATION, transformers.AutoModelForTokenClassification),
    "ForQuestionAnswering": (Task.QUESTION_ANSWERING, transformers.AutoModelForQuestionAnswering),
    "ForNextSentencePrediction": (Task.NEXT_SENTENCE_PREDICTION, transformers.AutoModelForNextSentencePrediction),
}
"""Task and loader of each kind of head, by the end of the transformers class's name."""

_PRETRAINED = ("ForMaskedLM", "ForPreTraining")
"""Ends of the names of classes that predict masked words. Most are exported for the embeddings of their encoder."""

_PROBLEMS = {
    "single_label_classification": Task.TEXT_CLASSIFICATION,
    "multi_label_classification": Task.MULTI_LABEL_CLASSIFICATION,
    "regression": Task.TEXT_REGRESSION,
}
"""Task of a text classifier, by its `problem_type`."""


def read_config(folder: Path) -> Any:
    """Return the settings in `config.json`, as transformers has them, and refuse those that encort cannot export.

    Raises:
        CheckpointError: The file is missing or damaged, or makes no sense; the checkpoint is a decoder, or needs code
            of its own.
    """
    settings = read_settings(folder, may_hold_adapter=True)
    if settings.get("is_encoder_decoder"):
        raise CheckpointError(f"{folder} is an encoder with a decoder; encort exports encoders only")
    if "auto_map" in settings:
        raise CheckpointError(f"{folder} needs code of its own (trust_remote_code), which encort never runs")
    if settings.get("model_type") == MODEL_TYPE:
        return dual_encoder_config(folder, settings)
    return make_config(str(folder), settings, classes=transformers.CONFIG_MAPPING, installed=transformers.__version__)


def task_and_loader(folder: Path, config: Any, *, keeps_words: bool = False) -> tuple[Task, Any]:
    """Return the task of the head, and the transformers class that loads the model (None for a dual encoder).

    Args:
        folder: Folder of the checkpoint.
        config: Its settings.
        keeps_words: Whether the head of a masked language model is kept, and not only its encoder.

    Raises:
        CheckpointError: The head or its class is unknown.
    """
    if config.model_type == MODEL_TYPE:
        return Task.NEXT_SENTENCE_PREDICTION, None
    architecture = next(iter(config.architectures or ()), "").removeprefix("TF").removeprefix("Flax")
    for ending, (task, loader) in _HEADS.items():
        if architecture.endswith(ending):
            _check_class(folder, architecture, ending)
            return (_classifier_task(config) if task is Task.TEXT_CLASSIFICATION else task), loader
    if keeps_words and architecture.endswith(_PRETRAINED):
        return Task.FILL_MASK, transformers.AutoModelForMaskedLM
    if not architecture.endswith(("Model", *_PRETRAINED)) and architecture:
        raise CheckpointError(
            f"{folder} is a {architecture}, and its head cannot be exported; encort knows: {', '.join(_HEADS)}; "
            "for embeddings save its encoder alone (model.base_model.save_pretrained)"
        )
    return Task.FEATURE_EXTRACTION, transformers.AutoModel


def _check_class(folder: Path, architecture: str, ending: str) -> None:
    """Refuse a class with a head that transformers lacks: it may compute something else from the same weights."""
    if not hasattr(transformers, architecture):
        raise CheckpointError(
            f"{folder} was saved by {architecture}, which transformers {transformers.__version__} does not have; if it "
            f'computes the same as a class that ends in {ending}, name that class in "architectures" in config.json'
        )


def _classifier_task(config: Any) -> Task:
    # Without a problem_type, transformers trains one label as a regression.
    default = "regression" if config.num_labels == 1 else "single_label_classification"
    return _PROBLEMS[config.problem_type or default]


def load_model(
    folder: Path,
    config: Any,
    task: Task,
    loader: Any,
    *,
    adapter: Adapter | None = None,
    task_adapter: str | None = None,
) -> Any:
    """Load the module in `eval()`, float32, with an adapter merged into it if there is one.

    Args:
        folder: Folder of the weights.
        config: Its settings.
        task: Task of the head.
        loader: Class of transformers that loads the model; None for a dual encoder.
        adapter: Adapter of PEFT that is merged.
        task_adapter: Name of an adapter in the weights themselves that is merged.

    Raises:
        CheckpointError: The settings describe no model, or a far larger one; the module cannot be loaded; the folder
            lacks weights, or it has weights that are not used. transformers would fill missing weights with random
            numbers, and leave unknown ones out.
    """
    files = _weight_files(folder)
    _check_outline(folder, config, loader, files)
    try:
        if loader is None:
            model, weights = load_dual_encoder(files, config)
        else:
            model, weights = _load_pretrained(folder, config, loader, files, task_adapter)
    except Exception as error:  # transformers raises errors of several libraries
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    if adapter is not None:
        model, weights = adapter.merge(model, weights)
    weights.check(folder, model, task)
    return model.eval()


def _weight_files(folder: Path) -> list[Path]:
    """Return the files with weights, and refuse a folder without safetensors, or with a head in another file."""
    if (folder / "config_setfit.json").exists() or (folder / "model_head.pkl").exists():
        raise CheckpointError(
            f"{folder} is a SetFit model, whose head is not a part of its weights (model_head.pkl); for its embeddings "
            "alone, copy the folder without config_setfit.json and model_head.pkl"
        )
    if files := weight_files(folder):
        return files
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{folder} has pickled weights only, which can run code when they are loaded; "
            "if you trust them, load them with transformers and save_pretrained(..., safe_serialization=True)"
        )
    raise CheckpointError(f"{folder} has no weights: no model.safetensors")


def _check_outline(folder: Path, config: Any, loader: Any, files: Sequence[Path]) -> None:
    """Refuse settings that describe no model, or a far larger one than the weights, before memory is taken for it."""
    try:
        with torch.device("meta"):
            outline = DualEncoderModule(config) if loader is None else loader.from_config(config)
    except Exception as error:  # transformers and torch raise errors of several kinds
        raise CheckpointError(f"{folder} cannot be loaded: its config.json describes no model ({error})") from error
    check_parameters(
        str(folder),
        parameters=sum(weight.numel() for weight in outline.parameters()),
        stored_bytes=sum(file.stat().st_size for file in files),
    )


def _load_pretrained(
    folder: Path, config: Any, loader: Any, files: Sequence[Path], task_adapter: str | None
) -> tuple[Any, LoadedWeights]:
    """Load a transformers model."""
    source: Path | None = folder
    options = _renamed(config)
    if adapter_names(config):
        source, loader = None, loader._model_mapping[type(config)]
        options = {"state_dict": merged_weights(folder, files, config, task_adapter)}
    with quiet(transformers):
        model, info = loader.from_pretrained(
            source,
            config=config,
            attn_implementation="eager",
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            **options,
        )
    weights = LoadedWeights(
        missing=sorted(info["missing_keys"]),
        mismatched=mismatched_names(info["mismatched_keys"]),
        unexpected=sorted({*info["unexpected_keys"], *_doubled(files, f"{model.base_model_prefix}.")}),
        other_classes=(config.architectures or ())[1:],
    )
    return model, weights


def _renamed(config: Any) -> dict[str, Any]:
    """Return the option of loading that renames weights, where transformers does not know their published names."""
    # The published classes with heads call the encoder `bert`.
    return {"key_mapping": {r"^bert\.": "nomic_bert."}} if config.model_type == "nomic_bert" else {}


def _doubled(files: Sequence[Path], prefix: str) -> set[str]:
    """Return the weights that are there with and without the prefix; transformers 5 takes one of each two."""
    names: set[str] = set()
    for file in files:
        with safe_open(file, framework="pt") as weights:
            names.update(weights.keys())
    return {name for name in names if f"{prefix}{name}" in names}
