"""Open the encoder that a training starts from: a checkpoint folder or hub id, or only its settings."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from encort.runtime.common.checkpoints.config import CONFIG_FILE, make_config, read_settings
from encort.runtime.common.checkpoints.hub import locate
from encort.runtime.common.checkpoints.positions import count_positions
from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.checkpoints.tokenizer import open_tokenizer
from encort.runtime.common.checkpoints.weights import weight_files
from encort.runtime.common.checks import check_vocabulary
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.folders import sha256
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer
from encort.training.dual_encoder import encoder_configs
from encort.training.features import token_columns
from encort.training.settings import TrainingSettings
from encort.training.weights import check_loaded, check_outline, first_line

_PROBABILITY = (int, float, type(None))
"""Types of settings that are probabilities. A bool only switches something on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Pretrained:
    """Settings and tokenizer of an encoder. Its weights are loaded by `network`.

    Attributes:
        name: Folder or hub id, as the user gave it.
        folder: Folder with its files.
        commit: Commit of a hub id; None for a local folder.
        config: Settings, of transformers.
        saved_tokenizer: Tokenizer of transformers, which is saved with the trained weights.
        tokenizer: Tokenizer of the runtime, so that training reads texts exactly as serving does.
        max_length: Most tokens of an input.
        from_scratch: Whether the weights are new instead of loaded.
    """

    name: str
    folder: Path
    commit: str | None
    config: Any
    saved_tokenizer: Any
    tokenizer: Tokenizer
    max_length: int
    from_scratch: bool

    @classmethod
    def open(
        cls,
        name: str,
        settings: TrainingSettings,
        *,
        from_scratch: bool = False,
        config_changes: Mapping[str, Any] | None = None,
    ) -> "Pretrained":
        """Load settings and tokenizer, and check that they belong together.

        Args:
            name: Folder or hub id.
            settings: `dropout` and `max_length` change the encoder.
            from_scratch: Use new weights, so that the folder needs none.
            config_changes: New values of the model's settings; only with `from_scratch`.

        Raises:
            CheckpointError: They cannot be loaded, or do not belong together.
        """
        folder, commit = locate(name)
        config, saved_tokenizer = _load(folder, from_scratch=from_scratch)
        encoders = encoder_configs(config)
        for encoder in encoders:
            _change(name, encoder, config_changes or {}, from_scratch=from_scratch)
            _check_tokenizer(name, encoder, saved_tokenizer)
            if settings.dropout is not None:
                _set_dropout(name, encoder, settings.dropout)
        max_length = min(_max_length(name, encoder, saved_tokenizer, settings.max_length) for encoder in encoders)
        # It is saved with the tokenizer, so that serving cuts texts where training did.
        saved_tokenizer.model_max_length = max_length
        tokenizer = _runtime_tokenizer(saved_tokenizer, max_length)
        for encoder in encoders:
            _check_token_types(name, encoder, saved_tokenizer, tokenizer)
        return cls(
            name=name,
            folder=folder,
            commit=commit,
            config=config,
            saved_tokenizer=saved_tokenizer,
            tokenizer=tokenizer,
            max_length=max_length,
            from_scratch=from_scratch,
        )

    @property
    def version(self) -> str:
        """Hash of everything that turns texts into inputs of the network."""
        content = f"{self.saved_tokenizer.backend_tokenizer.to_str()} {self.max_length} {self.has_token_types}"
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def plan(self) -> dict[str, Any]:
        """Everything about the encoder that determines the final weights; a resumed training must have the same."""
        return {
            "model": self.name,
            "tokenizer": self.version,
            "from_scratch": self.from_scratch,
            "model_content": self._content,
        }

    @property
    def _content(self) -> Any:
        """Hashes of a folder's settings and weights; of a hub id the commit."""
        files = [self.folder / CONFIG_FILE, *sorted(self.folder.glob("*.safetensors"))]
        return self.commit or {file.name: sha256(file) for file in files}

    @property
    def has_token_types(self) -> bool:
        """Whether the network reads token type ids."""
        return "token_type_ids" in self.saved_tokenizer.model_input_names

    def inputs(self, texts: Sequence[Text], *, prefix: str = "") -> dict[str, list[Any]]:
        """Return the inputs of the network for these texts, one column per input; see `token_columns`."""
        batch = self.tokenizer(texts, all_cores=True)
        return token_columns(batch, has_types=self.has_token_types, prefix=prefix)

    def network(self, auto_class: Any, **config: Any) -> Any:
        """Return a model of transformers. Weights that the checkpoint lacks are new, such as those of the head.

        Args:
            auto_class: Class of transformers that loads the model, such as `AutoModelForSequenceClassification`.
            config: Settings to change.

        Raises:
            CheckpointError: There are no weights, or some of the encoder are missing.
        """
        self.config.update(config)
        if not self.from_scratch:
            check_outline(self.folder, self.config, auto_class)
        try:
            if self.from_scratch:
                return auto_class.from_config(self.config, dtype=torch.float32, trust_remote_code=False)
            with quiet(transformers):
                network, info = auto_class.from_pretrained(
                    self.folder,
                    config=self.config,
                    dtype=torch.float32,  # transformers 5 would take that of the checkpoint
                    ignore_mismatched_sizes=True,  # a head for other labels is replaced by a new one
                    local_files_only=True,
                    output_loading_info=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                )
        except Exception as error:  # whatever transformers and its libraries raise
            raise CheckpointError(f"{self.name} cannot be trained: {first_line(error)}") from error
        check_loaded(self.name, network, info)
        return network


def _load(folder: Path, *, from_scratch: bool) -> tuple[Any, Any]:
    """Return the settings and the tokenizer of transformers."""
    config = _load_config(folder)
    tokenizer = open_tokenizer(folder, transformers)
    if not from_scratch and not weight_files(folder):
        raise CheckpointError(
            f"{folder} has no model.safetensors: save its weights in that format (safe_serialization=True), or start "
            "with new weights (--from-scratch)"
        )
    return config, tokenizer


def _load_config(folder: Path) -> Any:
    """Return the settings of transformers, without code of the checkpoint's own."""
    settings = read_settings(folder)
    # The trained weights belong to a class of transformers, so that their checkpoint must not name other code.
    settings.pop("auto_map", None)
    return make_config(str(folder), settings, classes=transformers.CONFIG_MAPPING, installed=transformers.__version__)


def _change(name: str, config: Any, changes: Mapping[str, Any], *, from_scratch: bool) -> None:
    if changes and not from_scratch:
        raise CheckpointError(f"the settings of {name} can be changed for new weights only: pass --from-scratch")
    for key, value in changes.items():
        current = getattr(config, key, None)
        new = float(value) if type(current) is float and type(value) is int else value
        if type(current) is not type(new):
            raise CheckpointError(f"{name} has no setting {key} that could be {value!r}")
        setattr(config, key, new)


def _set_dropout(name: str, config: Any, dropout: float) -> None:
    """Set every dropout probability; each architecture has its own names for them. None is an unset one."""
    names = [key for key, value in config.to_dict().items() if "dropout" in key and type(value) in _PROBABILITY]
    if not names:
        raise CheckpointError(f"{name} has no setting for dropout; leave --dropout out")
    for key in names:
        setattr(config, key, dropout)


def _check_tokenizer(name: str, config: Any, tokenizer: Any) -> None:
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{name} has no fast tokenizer with a padding token; encort needs a tokenizer.json")
    check_vocabulary(name, tokens=len(tokenizer), embeddings=config.vocab_size)
    if config.pad_token_id not in (None, tokenizer.pad_token_id):
        raise CheckpointError(
            f"{name}: the tokenizer pads with token {tokenizer.pad_token_id}, the model with {config.pad_token_id}; "
            "they do not belong together"
        )


def _check_token_types(name: str, config: Any, saved_tokenizer: Any, tokenizer: Tokenizer) -> None:
    types = getattr(config, "type_vocab_size", 0)
    highest = int(tokenizer([("a", "b")]).type_ids.max())
    if "token_type_ids" in saved_tokenizer.model_input_names and highest >= types:
        raise CheckpointError(
            f"{name}: the tokenizer gives pairs the token type {highest}, the model embeds {types} types; "
            "they do not belong together"
        )


def _max_length(name: str, config: Any, tokenizer: Any, asked: int | None) -> int:
    """Return the most tokens that the encoder reads, or those that the user asks for."""
    positions = count_positions(config)
    if positions is None or positions < 1:
        raise CheckpointError(f"{name} has no max_position_embeddings, so it is no encoder of the BERT family")
    if asked is not None and asked > positions:
        raise CheckpointError(f"max_length {asked} is more than the {positions} positions of {name}")
    return asked or min(int(tokenizer.model_max_length), positions)


def _runtime_tokenizer(tokenizer: Any, max_length: int) -> Tokenizer:
    backend = tokenizer.backend_tokenizer
    if tokenizer.truncation_side == "left":  # the runtime reads the side in the file
        backend.enable_truncation(max_length, direction="left")
    return Tokenizer(backend.to_str().encode(), max_length=max_length)
