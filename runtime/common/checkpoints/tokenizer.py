"""Open the tokenizer of a checkpoint, also if a newer transformers has saved it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError, EncortError
from encort.runtime.common.extras import require

_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_VOCABULARIES = (_FILE, "vocab.txt", "vocab.json")
"""Files from which a fast tokenizer is made without SentencePiece."""
_GENERIC_CLASS = "TokenizersBackend"
"""Class under which transformers 5 saves some tokenizers. Their `tokenizer.json` has the format of all others."""


def open_tokenizer(name: str, library: Any) -> Any:
    """Open a fast tokenizer of transformers.

    Args:
        name: Folder or hub id.
        library: The module `transformers`.

    Raises:
        CheckpointError: There is no tokenizer, it cannot be used, or it is a slow one.
        MissingExtraError: There is only a SentencePiece model, and the package that reads it is not installed.
    """
    folder = Path(name)
    try:
        settings = _read_settings(folder) if folder.is_dir() else _download_settings(name, library)
        _check_limit(name, settings.get("model_max_length"))
        _require_sentencepiece(folder)
        is_older = not hasattr(library, _GENERIC_CLASS)
        is_generic = is_older and settings.get("tokenizer_class") == _GENERIC_CLASS
        loader = library.PreTrainedTokenizerFast if is_generic else library.AutoTokenizer
        changes = _older_settings(settings) if is_older else {}
        tokenizer = loader.from_pretrained(name, trust_remote_code=False, **changes)
    except EncortError:
        raise
    except Exception as error:  # transformers raises errors of several libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{name} has no usable tokenizer: {reason}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{name} has only a slow tokenizer; encort needs a {_FILE}")
    return tokenizer


def _read_settings(folder: Path) -> Mapping[str, Any]:
    file = folder / _CONFIG_FILE
    settings: dict[str, Any] = read_json(file, dict) if file.exists() else {}
    return settings


def _download_settings(name: str, library: Any) -> Mapping[str, Any]:
    settings: dict[str, Any] = library.models.auto.tokenization_auto.get_tokenizer_config(name)
    return settings


def _check_limit(name: str, limit: Any) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1):
        raise CheckpointError(f"{name}: {_CONFIG_FILE} has model_max_length {limit!r}, expected a number above 0")


def _require_sentencepiece(folder: Path) -> None:
    """Check that the package is installed if the folder's vocabulary is only in a SentencePiece model."""
    models = sorted(file.name for file in folder.glob("*.model"))
    if models and not any((folder / name).exists() for name in _VOCABULARIES):
        require(
            f"to read {models[0]} of {folder}, which has no {_FILE}, encort",
            "sentencepiece",
            "sentencepiece",
            "google.protobuf",
        )


def _older_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of transformers 5 that older versions have under another name, or with another default."""
    changes: dict[str, Any] = {}
    extra = settings.get("extra_special_tokens")
    if isinstance(extra, list):
        tokens = [token["content"] if isinstance(token, dict) else token for token in extra]
        changes |= {"extra_special_tokens": {}, "additional_special_tokens": tokens}
    if settings.get("tokenizer_class") == _GENERIC_CLASS and "model_input_names" not in settings:
        changes["model_input_names"] = ["input_ids", "attention_mask"]
    return changes
