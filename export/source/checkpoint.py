"""Load a checkpoint folder or hub id in eager PyTorch, and refuse damaged or unsafe ones."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from encort.export.source.dual_encoder import MODEL_TYPE, load_dual_encoder
from encort.export.source.embedding_settings import EmbeddingSettings
from encort.runtime.bundle.manifest import Pooling, Task
from encort.runtime.common.checks import check_vocabulary
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.folders import is_missing_folder


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint in Hugging Face layout.

    Attributes:
        name: Folder or hub id, as the user gave it.
        folder: Folder with its files.
        revision: Commit of a hub checkpoint; None for a local folder.
        task: Task of the checkpoint's head.
        embedding: The folder's settings of sentence embeddings.
        model: PyTorch module in `eval()`, float32, on the CPU. It is the oracle of every variant.
        tokenizer: Fast tokenizer of the checkpoint.
    """

    name: str
    folder: Path
    revision: str | None
    task: Task
    embedding: EmbeddingSettings
    model: Any
    tokenizer: Any

    @classmethod
    def open(cls, name: str, *, revision: str | None = None, pooling: Pooling | None = None) -> "Checkpoint":
        """Load a local folder, or download a hub id.

        Args:
            name: Folder or hub id.
            revision: Commit, branch or tag of a hub id.
            pooling: Pooling of sentence embeddings; None takes it from the folder's files.

        Raises:
            CheckpointError: The checkpoint does not exist; its weights are missing, pickled or not finite; it needs
                remote code; it has no fast tokenizer, or the tokenizer has more tokens than the model has embeddings.
        """
        folder, revision = _locate(name, revision)
        config = _config(folder)
        _check_loadable(folder, config)
        task, loader = _task_and_loader(folder, config)
        embedding = EmbeddingSettings.read(folder, pooling=pooling)
        model = _load_model(folder, config, task, loader)
        checkpoint = cls(name, folder, revision, task, embedding, model, _load_tokenizer(folder))
        checkpoint._check_weights()
        checkpoint._check_labels()
        return checkpoint

    @property
    def architecture(self) -> str:
        """Model type in `config.json`, such as `bert`."""
        return str(self.model.config.model_type)

    @property
    def encoder_configs(self) -> dict[str, Any]:
        """Configuration of each encoder, by the prefix of its weights."""
        config = self.model.config
        if self.architecture == MODEL_TYPE:
            return {"encoder1.": config.encoder1, "encoder2.": config.encoder2}
        return {"": config}

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Every parameter and buffer by its name in the module, as float32."""
        return {name: tensor.float().numpy() for name, tensor in self.model.state_dict().items()}

    @property
    def labels(self) -> list[str]:
        """Names of the columns of the logits; empty for tasks without labels."""
        if self.task in (Task.FEATURE_EXTRACTION, Task.QUESTION_ANSWERING):
            return []
        if self.task is Task.NEXT_SENTENCE_PREDICTION and self.architecture != MODEL_TYPE:
            return ["is_next", "not_next"]  # the order in which BERT was trained
        return [str(label) for _, label in sorted(self.model.config.id2label.items())]

    @property
    def tags_words(self) -> bool:
        """Whether each word has one tag, which transformers calls the aggregation strategy "first"."""
        return getattr(self.model.config, "aggregation_strategy", "first") != "simple"

    @property
    def max_length(self) -> int | None:
        """Smallest limit of tokens in the tokenizer's and sentence-transformers' files; None if there is no limit."""
        limits = [self.tokenizer.model_max_length, self.embedding.max_length]
        return min((int(limit) for limit in limits if limit), default=None)

    def _check_weights(self) -> None:
        broken = [name for name, array in self.weights.items() if not np.isfinite(array).all()]
        if broken:
            raise CheckpointError(f"{self.name}: {broken[0]} holds NaN or infinity; the training diverged, train again")
        for config in self.encoder_configs.values():
            check_vocabulary(self.name, tokens=len(self.tokenizer), embeddings=config.vocab_size)

    def _check_labels(self) -> None:
        has_labels = self.task not in (Task.FEATURE_EXTRACTION, Task.QUESTION_ANSWERING)
        least = 1 if self.task in (Task.TEXT_REGRESSION, Task.MULTI_LABEL_CLASSIFICATION) else 2
        if has_labels and len(self.labels) < least:
            raise CheckpointError(
                f"{self.name} has {len(self.labels)} label(s) for {self.task}, which needs at least {least}; "
                "set id2label and problem_type in its config.json"
            )
        if self.task is Task.TEXT_REGRESSION and len(self.labels) > 1:
            raise CheckpointError(f"{self.name} gives {len(self.labels)} numbers per text; only one can be exported")
        if len(set(self.labels)) != len(self.labels):
            raise CheckpointError(f"{self.name}: labels must differ, its config.json has {', '.join(self.labels)}")


def _locate(name: str, revision: str | None) -> tuple[Path, str | None]:
    """Return the folder of a checkpoint, downloaded if need be, and the commit of a hub id."""
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise CheckpointError(f"{name} is a folder, which has no revision {revision!r}; leave --revision out")
        return folder, None
    if is_missing_folder(name):
        raise CheckpointError(f"there is no checkpoint folder {name}")
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.txt", "*.model", "*.safetensors", "1_Pooling/*"]
        snapshot = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises errors of several libraries
        raise CheckpointError(f"{name} is neither a folder nor a model that the hub gives ({error})") from error
    # The hub's cache names the folder of a snapshot after its commit.
    return snapshot, snapshot.name


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{folder} has no config.json, so it is not a checkpoint") from None
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'} is not JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{folder / 'config.json'} holds no settings")
    return config


def _check_loadable(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("is_encoder_decoder"):
        raise CheckpointError(f"{folder} is an encoder with a decoder; encort exports encoders only")
    if "auto_map" in config:
        raise CheckpointError(f"{folder} needs code of its own (trust_remote_code), which encort never runs")
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("pytorch_model*.bin")):
        raise CheckpointError(
            f"{folder} has pickled weights only, which can run code when they are loaded; "
            "if you trust them, load them with transformers and save_pretrained(..., safe_serialization=True)"
        )
    raise CheckpointError(f"{folder} has no weights: no model.safetensors")


_HEADS: Mapping[str, tuple[Task, Any]] = {
    "ForSequenceClassification": (Task.TEXT_CLASSIFICATION, transformers.AutoModelForSequenceClassification),
    "ForTokenClassification": (Task.TOKEN_CLASSIFICATION, transformers.AutoModelForTokenClassification),
    "ForQuestionAnswering": (Task.QUESTION_ANSWERING, transformers.AutoModelForQuestionAnswering),
    "ForNextSentencePrediction": (Task.NEXT_SENTENCE_PREDICTION, transformers.AutoModelForNextSentencePrediction),
}
"""Task and loader of each kind of head, by the end of the transformers class's name."""

_PROBLEMS = {
    "single_label_classification": Task.TEXT_CLASSIFICATION,
    "multi_label_classification": Task.MULTI_LABEL_CLASSIFICATION,
    "regression": Task.TEXT_REGRESSION,
}
"""Task of a text classifier, by its `problem_type`."""


def _task_and_loader(folder: Path, config: Mapping[str, Any]) -> tuple[Task, Any]:
    """Return the task of the head and the transformers class that loads the model; None loads a dual encoder."""
    if config.get("model_type") == MODEL_TYPE:
        return Task.NEXT_SENTENCE_PREDICTION, None
    architecture = str((config.get("architectures") or [""])[0])
    for ending, (task, loader) in _HEADS.items():
        if architecture.endswith(ending):
            return (_classifier_task(folder, config) if task is Task.TEXT_CLASSIFICATION else task), loader
    if not architecture.endswith(("Model", "ForMaskedLM", "ForPreTraining")) and architecture:
        raise CheckpointError(
            f"{folder} is a {architecture}, whose head cannot be exported; encort knows: {', '.join(_HEADS)}; "
            "for embeddings save its encoder alone (model.base_model.save_pretrained)"
        )
    return Task.FEATURE_EXTRACTION, transformers.AutoModel


def _classifier_task(folder: Path, config: Mapping[str, Any]) -> Task:
    problem = config.get("problem_type")
    if problem is None:
        # Without a problem_type, transformers trains one label as a regression.
        problem = "regression" if len(config.get("id2label") or "ab") == 1 else "single_label_classification"
    if problem not in _PROBLEMS:
        raise CheckpointError(f"{folder} has problem_type {problem!r}; encort knows {', '.join(_PROBLEMS)}")
    return _PROBLEMS[problem]


def _load_model(folder: Path, config: Mapping[str, Any], task: Task, loader: Any) -> Any:
    """Load the module, and refuse a folder that lacks weights: transformers would fill them with random numbers."""
    model: Any
    try:
        if loader is None:
            model, missing = load_dual_encoder(folder, dict(config))
            mismatched: list[Any] = []
        else:
            model, missing, mismatched = _load_pretrained(folder, loader)
    except Exception as error:  # transformers raises errors of several libraries
        raise CheckpointError(f"{folder} cannot be loaded: {error}") from error
    # Masked-language-model checkpoints come without a pooler; embeddings do not need it, a classifier does.
    optional = "pooler." if task is Task.FEATURE_EXTRACTION else None
    needed = [name for name in missing if optional is None or optional not in name]
    if needed or mismatched:
        names = ", ".join([*needed, *map(str, mismatched)][:3])
        raise CheckpointError(f"{folder} lacks weights of its own architecture: {names}; save the whole model")
    if len(needed) != len(missing):
        model.base_model.pooler = None
    return model.eval()


def _load_pretrained(folder: Path, loader: Any) -> tuple[Any, list[str], list[Any]]:
    """Load a transformers model.

    Returns:
        The model, the names of its weights that the folder lacks, and the weights that have another shape there.
    """
    model, info = loader.from_pretrained(
        folder,
        attn_implementation="eager",
        dtype=torch.float32,
        local_files_only=True,
        output_loading_info=True,
        trust_remote_code=False,
        use_safetensors=True,
    )
    return model, sorted(info["missing_keys"]), list(info["mismatched_keys"])


def _load_tokenizer(folder: Path) -> Any:
    try:
        tokenizer = _tokenizer_loader(folder).from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises errors of several libraries
        raise CheckpointError(f"{folder} has no usable tokenizer: {error}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder} has only a slow tokenizer; encort needs a tokenizer.json")
    return tokenizer


def _tokenizer_loader(folder: Path) -> Any:
    """Return the class that loads the tokenizer."""
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    # transformers 5 saves some tokenizers under a class that 4.57 lacks; their tokenizer.json has the same format.
    is_new = settings.get("tokenizer_class") == "TokenizersBackend" and not hasattr(transformers, "TokenizersBackend")
    return transformers.PreTrainedTokenizerFast if is_new else transformers.AutoTokenizer
