"""A checkpoint, loaded in eager PyTorch."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray

from encort.export.source.adapters import Adapter
from encort.export.source.cross_encoder import cross_encoder_head
from encort.export.source.dual_encoder import MODEL_TYPE
from encort.export.source.embedding.settings import EmbeddingSettings
from encort.export.source.embedding.transformer_settings import lower_case
from encort.export.source.loading import (
    load_model,
    read_config,
    task_and_loader,
)
from encort.export.source.retrieval.reader import read_retrieval
from encort.export.source.retrieval.settings import RetrievalSettings
from encort.export.source.retrieval.splade import SpladePooling
from encort.export.source.task_adapters import check_adapter
from encort.runtime.bundle.manifest import Activation, Pooling, Task
from encort.runtime.common.aggregation import Aggregation
from encort.runtime.common.checkpoints.hub import locate
from encort.runtime.common.checkpoints.kept_tokens import kept_tokens
from encort.runtime.common.checkpoints.tokenizer import open_tokenizer
from encort.runtime.common.checks import check_vocabulary, choice
from encort.runtime.common.errors import CheckpointError, InputError
from encort.runtime.common.output.escaping import is_unicode
from encort.runtime.common.tag_schemes import TagScheme, TagSchemeError
from encort.runtime.common.token_lists import TokenKind

_WITHOUT_LABELS = (Task.FEATURE_EXTRACTION, Task.QUESTION_ANSWERING, Task.FILL_MASK)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint in Hugging Face layout.

    Attributes:
        name: Folder or hub id, as the user gave it.
        folder: Its folder. The files of its encoder may be in a folder inside of it.
        revision: Commit of a hub checkpoint; None for a local folder.
        adapter: Name of the adapter in the checkpoint's own weights that is merged; None: none is.
        task: Task of the checkpoint's head.
        activation: Function of the logits that the checkpoint names for sentence-transformers; None: it names none.
        embedding: The folder's settings of sentence embeddings.
        retrieval: The folder's token vectors and sparse embeddings.
        model: PyTorch module in `eval()`, float32, on the CPU. It is the oracle of every variant.
        tokenizer: Fast tokenizer of the checkpoint.
    """

    name: str
    folder: Path
    revision: str | None
    adapter: str | None
    task: Task
    activation: Activation | None
    embedding: EmbeddingSettings
    retrieval: RetrievalSettings
    model: Any
    tokenizer: Any

    @classmethod
    def open(
        cls,
        name: str,
        *,
        revision: str | None = None,
        pooling: list[Pooling] | None = None,
        fills_masks: bool = False,
        adapter: str | None = None,
    ) -> "Checkpoint":
        """Load a local folder, or download a hub id.

        Args:
            name: Folder or hub id.
            revision: Commit, branch or tag of a hub id.
            pooling: Poolings of sentence embeddings; None takes them from the folder's files.
            fills_masks: Whether the head of a masked language model is kept.
            adapter: Name of the adapter in the checkpoint's own weights that is merged; None merges none of them.

        Raises:
            InputError: The checkpoint has no such adapter.
            CheckpointError: The checkpoint does not exist; its weights are missing, pickled or not finite; it needs
                remote code; it has no fast tokenizer, or the tokenizer has more tokens than the model has embeddings.
            MissingExtraError: Its tokenizer needs the extra `sentencepiece`.
        """
        folder, revision = locate(name, revision)
        embedding = EmbeddingSettings.read(folder, pooling=pooling)
        encoder = embedding.encoder_folder
        of_peft = Adapter.read(encoder)
        config = read_config(encoder if of_peft is None else of_peft.config_folder)
        check_adapter(name, config, adapter)
        if of_peft is not None:
            of_peft.complete(config)
        expansion = SpladePooling.read(folder)
        task, loader = task_and_loader(encoder, config, keeps_words=fills_masks or expansion is not None)
        if expansion is not None and task is not Task.FILL_MASK:
            raise CheckpointError(f"{name} weighs words, but the architecture in its config.json predicts none")
        task = Task.FEATURE_EXTRACTION if task is Task.FILL_MASK and not fills_masks else task
        task, activation = cross_encoder_head(folder, config, task)
        weights = encoder if of_peft is None else of_peft.base
        model = load_model(weights, config, task, loader, adapter=of_peft, task_adapter=adapter)
        tokenizer = open_tokenizer(encoder if of_peft is None else of_peft.tokenizer_folder, transformers)
        if embedding.transformer.lower_case:
            lower_case(tokenizer.backend_tokenizer)
        retrieval = read_retrieval(folder, config, tokenizer, expansion, embedding.prompts)
        checkpoint = cls(name, folder, revision, adapter, task, activation, embedding, retrieval, model, tokenizer)
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
        if self.task in _WITHOUT_LABELS:
            return []
        if self.task is Task.NEXT_SENTENCE_PREDICTION and self.architecture != MODEL_TYPE:
            return ["is_next", "not_next"]  # the order in which BERT was trained
        return [str(label) for _, label in sorted(self.model.config.id2label.items())]

    @property
    def aggregation(self) -> Aggregation:
        """Default of `Model.tag`, from `aggregation_strategy` of config.json, a name of transformers' pipelines.

        Training writes `"first"` for taggers of words; `Aggregation.WORD` reads them with every tokenizer.

        Raises:
            CheckpointError: There is no such aggregation.
        """
        name = str(getattr(self.model.config, "aggregation_strategy", None) or "first").lower()
        try:
            return Aggregation.WORD if name == "first" else choice(Aggregation, "aggregation_strategy", name)
        except InputError as error:
            raise CheckpointError(f"config.json of {self.name}: {error}") from error

    @property
    def tokens(self) -> TokenKind | None:
        """Kind of the lists of tokens that this tagger was trained on; None for other tasks, or if it is not kept.

        Raises:
            CheckpointError: The setting has an unknown value.
        """
        return kept_tokens(self.name, self.model.config) if self.task is Task.TOKEN_CLASSIFICATION else None

    @property
    def threshold(self) -> float:
        """Least probability of a label that training chose for multi-label classification; 0.5 if there is none.

        Raises:
            CheckpointError: It is not a number between 0 and 1.
        """
        value = getattr(self.model.config, "threshold", None)
        if value is None or self.task is not Task.MULTI_LABEL_CLASSIFICATION:
            return 0.5
        if not isinstance(value, float) or not 0 < value < 1:
            raise CheckpointError(
                f"{self.name}: threshold in its config.json is {value!r}; it must be between 0 and 1, or left out"
            )
        return value

    @property
    def null_threshold(self) -> float:
        """Threshold of "no answer" that training chose for question answering; 0 if there is none.

        Raises:
            CheckpointError: It is not a finite number.
        """
        value = getattr(self.model.config, "null_threshold", None)
        if value is None or self.task is not Task.QUESTION_ANSWERING:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(
                f"{self.name}: null_threshold in its config.json is {value!r}; it must be a finite number, or left out"
            )
        return float(value)

    @property
    def mask(self) -> int | None:
        """Id of the token that stands for a missing word; None for other tasks than masked words.

        Raises:
            CheckpointError: The tokenizer has no such token.
        """
        if self.task is not Task.FILL_MASK:
            return None
        if self.tokenizer.mask_token_id is None:
            raise CheckpointError(f"{self.name}: its tokenizer has no mask token, so no word can be asked for")
        return int(self.tokenizer.mask_token_id)

    @property
    def max_length(self) -> int | None:
        """Limit of tokens in the files of the model, or else that of the tokenizer; None if there is none."""
        own = self.retrieval.max_length or self.embedding.transformer.max_length
        limit = own or self.tokenizer.model_max_length
        return int(limit) if limit else None

    def _check_weights(self) -> None:
        broken = [name for name, array in self.weights.items() if not np.isfinite(array).all()]
        if broken:
            raise CheckpointError(f"{self.name}: {broken[0]} holds NaN or infinity; the training diverged, train again")
        for config in self.encoder_configs.values():
            check_vocabulary(self.name, tokens=len(self.tokenizer), embeddings=config.vocab_size)

    def _check_labels(self) -> None:
        has_labels = self.task not in _WITHOUT_LABELS
        least = 1 if self.task in (Task.TEXT_REGRESSION, Task.MULTI_LABEL_CLASSIFICATION) else 2
        if has_labels and len(self.labels) < least:
            raise CheckpointError(
                f"{self.name} has {len(self.labels)} label(s) for {self.task}, which needs at least {least}; "
                "set id2label and problem_type in its config.json"
            )
        if self.task is Task.TEXT_REGRESSION and len(self.labels) > 1:
            raise CheckpointError(f"{self.name} gives {len(self.labels)} numbers per text; only one can be exported")
        for label in self.labels:
            if not is_unicode(label):
                raise CheckpointError(
                    f"{self.name}: the label {label!r} has an unpaired surrogate, so it is not Unicode; rename it in "
                    "id2label of its config.json"
                )
        if len(set(self.labels)) != len(self.labels):
            raise CheckpointError(f"{self.name}: labels must differ, its config.json has {', '.join(self.labels)}")
        if self.task is Task.TOKEN_CLASSIFICATION:
            try:
                TagScheme(self.labels)
            except TagSchemeError as error:
                raise CheckpointError(f"{self.name}, id2label of its config.json: {error}") from error
