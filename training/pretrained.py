"""What training starts from: a checkpoint folder or hub id, or its settings alone."""

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.errors import CheckpointError
from encort.runtime.folders import is_missing_folder
from encort.runtime.tokenizer import Tokenizer
from encort.training.settings import TrainingSettings


@dataclass(frozen=True, eq=False, kw_only=True)
class Pretrained:
    """An encoder's settings and tokenizer; its weights are loaded when a network is made of it.

    Attributes:
        name: Folder or hub id, as the user gave it.
        config: Settings of transformers.
        saved_tokenizer: Of transformers, as it is saved with the trained weights.
        tokenizer: The same as it will serve: texts are read in training as they are in production.
        max_length: Most tokens of an input.
        from_scratch: The weights are not loaded but drawn.
    """

    name: str
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
            from_scratch: See `Pretrained`.
            config_changes: Other values of the model's settings; for new weights only.

        Raises:
            CheckpointError: They cannot be loaded, or disagree.
        """
        if is_missing_folder(name):
            raise CheckpointError(f"there is no checkpoint folder {name}")
        try:
            config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
            saved_tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(f"{name} cannot be loaded as a pretrained encoder: {_first_line(error)}") from error
        _change(name, config, config_changes or {}, from_scratch=from_scratch)
        if settings.dropout is not None:
            _set_dropout(config, settings.dropout)
        max_length = _max_length(name, config, saved_tokenizer, settings.max_length)
        # Saved with the tokenizer: what is served is cut where the training was.
        saved_tokenizer.model_max_length = max_length
        return cls(
            name=name,
            config=config,
            saved_tokenizer=saved_tokenizer,
            tokenizer=_serving_tokenizer(saved_tokenizer, max_length),
            max_length=max_length,
            from_scratch=from_scratch,
        )

    @property
    def version(self) -> str:
        """Another one where texts become other inputs."""
        plain = f"{self.saved_tokenizer.backend_tokenizer.to_str()} {self.max_length} {self.has_token_types}"
        return hashlib.sha256(plain.encode()).hexdigest()

    @property
    def has_token_types(self) -> bool:
        return "token_type_ids" in self.saved_tokenizer.model_input_names

    def network(self, auto_class: Any, **config: Any) -> Any:
        """A model of transformers with these settings changed; what the checkpoint has no weights for is new.

        Raises:
            CheckpointError: It has no weights, or lacks some of its encoder.
        """
        self.config.update(config)
        try:
            if self.from_scratch:
                return auto_class.from_config(self.config)
            network, info = auto_class.from_pretrained(
                self.name,
                config=self.config,
                # A head for other labels is replaced by a fresh one.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
                use_safetensors=True,
            )
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(
                f"{self.name} cannot be loaded as a pretrained encoder: {_first_line(error)}; to begin with new "
                "weights of its settings, pass --from-scratch"
            ) from error
        self._check_loaded(network, info)
        return network

    def _check_loaded(self, network: Any, info: Mapping[str, Any]) -> None:
        """Only the head and the pooler may be new; everything else must come from the checkpoint."""
        # transformers 5 gives mismatched names with their shapes.
        mismatched = [name if isinstance(name, str) else name[0] for name in info["mismatched_keys"]]
        invented = [*info["missing_keys"], *mismatched]
        encoder = {name for name in network.base_model.state_dict() if not name.startswith("pooler.")}
        lacking = sorted(encoder.intersection(name.removeprefix(f"{network.base_model_prefix}.") for name in invented))
        if lacking:
            raise CheckpointError(
                f"{self.name} lacks weights of its own architecture, {lacking[0]} among them; save it whole"
            )


def _change(name: str, config: Any, changes: Mapping[str, Any], *, from_scratch: bool) -> None:
    if changes and not from_scratch:
        raise CheckpointError(f"the settings of {name} can be changed for new weights only: pass --from-scratch")
    for key, value in changes.items():
        if not hasattr(config, key) or type(getattr(config, key)) is not type(value):
            raise CheckpointError(f"{name} has no setting {key} that could be {value!r}")
        setattr(config, key, value)


def _set_dropout(config: Any, dropout: float) -> None:
    """Every architecture has its own names for it."""
    for name, value in config.to_dict().items():
        if "dropout" in name and (isinstance(value, float) or name == "classifier_dropout"):
            setattr(config, name, dropout)


def _max_length(name: str, config: Any, tokenizer: Any, asked: int | None) -> int:
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{name} has no fast tokenizer with a padding token; encort needs a tokenizer.json")
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens, the model embeds {config.vocab_size}; "
            "they do not belong together"
        )
    # RoBERTa counts its positions from beyond the padding token.
    offset = config.pad_token_id + 1 if config.model_type in ("roberta", "xlm-roberta", "camembert", "mpnet") else 0
    positions = int(config.max_position_embeddings) - offset
    if asked is not None and asked > positions:
        raise CheckpointError(f"max_length {asked} is more than the {positions} positions of {name}")
    return asked or min(int(tokenizer.model_max_length), positions)


def _serving_tokenizer(tokenizer: Any, max_length: int) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(file))
        return Tokenizer(file, max_length=max_length)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
