"""What training starts from: a checkpoint folder or hub id, or its settings alone."""

import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.folders import is_missing_folder
from encort.runtime.text.token_batch import Text
from encort.runtime.text.tokenizer import Tokenizer
from encort.training.data.sources import sha256
from encort.training.features import token_columns
from encort.training.settings import TrainingSettings
from encort.training.tasks.dual_encoder import encoder_configs


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
        except Exception as error:  # transformers raises whatever its parts raise
            raise CheckpointError(f"{name} cannot be loaded as a pretrained encoder: {_first_line(error)}") from error
        try:
            saved_tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        except Exception as error:  # the same
            raise CheckpointError(f"{name} has no usable tokenizer: {_first_line(error)}") from error
        if not from_scratch and Path(name).is_dir() and not any(Path(name).glob("*.safetensors")):
            raise CheckpointError(
                f"{name} has no model.safetensors: save its weights so (safe_serialization=True), or begin with new "
                "ones of its settings (--from-scratch)"
            )
        encoders = encoder_configs(config)
        for each in encoders:
            _change(name, each, config_changes or {}, from_scratch=from_scratch)
            _check_belong_together(name, each, saved_tokenizer)
            if settings.dropout is not None:
                _set_dropout(each, settings.dropout)
        max_length = min(_max_length(name, each, saved_tokenizer, settings.max_length) for each in encoders)
        # Saved with the tokenizer: what is served is cut where the training was.
        saved_tokenizer.model_max_length = max_length
        tokenizer = _serving_tokenizer(saved_tokenizer, max_length)
        for each in encoders:
            _check_types(name, each, saved_tokenizer, tokenizer)
        return cls(
            name=name,
            config=config,
            saved_tokenizer=saved_tokenizer,
            tokenizer=tokenizer,
            max_length=max_length,
            from_scratch=from_scratch,
        )

    @property
    def version(self) -> str:
        """Another one where texts become other inputs."""
        plain = f"{self.saved_tokenizer.backend_tokenizer.to_str()} {self.max_length} {self.has_token_types}"
        return hashlib.sha256(plain.encode()).hexdigest()

    @property
    def plan(self) -> dict[str, Any]:
        """What of it decides about the weights that a training ends with, to know whether another goes on with it."""
        return {
            "model": self.name,
            "tokenizer": self.version,
            "from_scratch": self.from_scratch,
            "model_content": self._content,
        }

    @property
    def _content(self) -> Any:
        """Hashes of a folder's settings and weights; the commit of a hub id, as far as it is known."""
        folder = Path(self.name)
        files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))] if folder.is_dir() else []
        return {file.name: sha256(file) for file in files} or self.config._commit_hash

    @property
    def has_token_types(self) -> bool:
        return "token_type_ids" in self.saved_tokenizer.model_input_names

    def inputs(self, texts: Sequence[Text], *, prefix: str = "") -> dict[str, list[Any]]:
        """What a network reads of texts, a column each; see `token_columns`."""
        batch = self.tokenizer(texts, all_cores=True)
        return token_columns(batch, has_types=self.has_token_types, prefix=prefix)

    def network(self, auto_class: Any, **config: Any) -> Any:
        """A model of transformers with these settings changed; what the checkpoint has no weights for is new.

        Raises:
            CheckpointError: It has no weights, or lacks some of its encoder.
        """
        self.config.update(config)
        try:
            if self.from_scratch:
                return auto_class.from_config(self.config, trust_remote_code=False)
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
            raise CheckpointError(f"{self.name} cannot be trained: {_first_line(error)}") from error
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
        before = getattr(config, key, None)
        given = float(value) if type(before) is float and type(value) is int else value
        if type(before) is not type(given):
            raise CheckpointError(f"{name} has no setting {key} that could be {value!r}")
        setattr(config, key, given)


_OFFSET_POSITIONS = (
    *("roberta", "xlm-roberta", "camembert", "mpnet", "roberta-prelayernorm", "data2vec-text", "xlm-roberta-xl"),
)


def _set_dropout(config: Any, dropout: float) -> None:
    """Every architecture has its own names for it."""
    for name, value in config.to_dict().items():
        if "dropout" in name and (type(value) in (int, float) or name == "classifier_dropout"):
            setattr(config, name, dropout)


def _check_belong_together(name: str, config: Any, tokenizer: Any) -> None:
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise CheckpointError(f"{name} has no fast tokenizer with a padding token; encort needs a tokenizer.json")
    if len(tokenizer) > config.vocab_size:
        raise CheckpointError(
            f"{name}: the tokenizer has {len(tokenizer)} tokens, the model embeds {config.vocab_size}; "
            "they do not belong together"
        )
    if config.pad_token_id not in (None, tokenizer.pad_token_id):
        raise CheckpointError(
            f"{name}: the tokenizer pads with token {tokenizer.pad_token_id}, the model with {config.pad_token_id}; "
            "they do not belong together"
        )


def _check_types(name: str, config: Any, saved_tokenizer: Any, tokenizer: Tokenizer) -> None:
    types = getattr(config, "type_vocab_size", 0)
    highest = int(tokenizer([("a", "b")]).type_ids.max())
    if "token_type_ids" in saved_tokenizer.model_input_names and highest >= types:
        raise CheckpointError(
            f"{name}: the tokenizer gives pairs the token type {highest}, the model embeds {types} types; "
            "they do not belong together"
        )


def _max_length(name: str, config: Any, tokenizer: Any, asked: int | None) -> int:
    # RoBERTa counts its positions from beyond the padding token.
    offset = config.pad_token_id + 1 if config.model_type in _OFFSET_POSITIONS else 0
    positions = int(getattr(config, "max_position_embeddings", 0)) - offset
    if positions < 1:
        raise CheckpointError(f"{name} has no max_position_embeddings, so it is no encoder of the BERT family")
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
