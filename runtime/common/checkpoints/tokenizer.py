"""Open the tokenizer of a checkpoint, also if a newer transformers has saved it, and save it for both versions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.checkpoints.majors import (
    shared_tokenizer_settings,
    tokenizer_changes,
    tokenizer_loader,
)
from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.checkpoints.rebuilt import warn_if_rebuilt
from encort.runtime.common.errors import CheckpointError, EncortError
from encort.runtime.common.extras import require
from encort.runtime.common.output.escaping import dump_json

_FILE = "tokenizer.json"
_CONFIG_FILE = "tokenizer_config.json"
_VOCABULARIES = (_FILE, "vocab.txt", "vocab.json")
"""Files from which a fast tokenizer is made without SentencePiece."""


def open_tokenizer(folder: Path, library: Any) -> Any:
    """Open a fast tokenizer of transformers, and warn if it is another one than `tokenizer.json` has.

    Args:
        folder: Folder of the checkpoint.
        library: The module `transformers`.

    Raises:
        CheckpointError: There is no tokenizer, it cannot be used, or it is a slow one.
        MissingExtraError: There is only a SentencePiece model, and the package that reads it is not installed.
    """
    try:
        settings = _read_settings(folder)
        _check_limit(folder, settings.get("model_max_length"))
        _check_vocabulary(folder)
        loader, changes = tokenizer_loader(library, settings), tokenizer_changes(library, settings)
        with quiet(library):
            tokenizer = loader.from_pretrained(str(folder), trust_remote_code=False, **changes)
    except EncortError:
        raise
    except Exception as error:  # transformers raises errors of several libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{folder} has no usable tokenizer: {reason}") from error
    if not tokenizer.is_fast:
        raise CheckpointError(f"{folder} has only a slow tokenizer; encort needs a {_FILE}")
    warn_if_rebuilt(tokenizer, folder / _FILE, library.__version__)
    return tokenizer


def _read_settings(folder: Path) -> Mapping[str, Any]:
    file = folder / _CONFIG_FILE
    settings: dict[str, Any] = read_json(file, dict) if file.exists() else {}
    return settings


def _check_limit(folder: Path, limit: Any) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1):
        raise CheckpointError(f"{folder}: {_CONFIG_FILE} has model_max_length {limit!r}, expected a number above 0")


def _check_vocabulary(folder: Path) -> None:
    """Check that there is a vocabulary, and if it is only a SentencePiece model, the package that reads it.

    transformers 5 makes a tokenizer with a handful of tokens of a folder without a vocabulary.
    """
    if any((folder / name).exists() for name in _VOCABULARIES):
        return
    models = sorted(file.name for file in folder.glob("*.model"))
    if not models:
        raise CheckpointError(f"{folder} has no usable tokenizer: there is no {_FILE}, and no other vocabulary")
    require(
        f"to read {models[0]} of {folder}, which has no {_FILE}, encort",
        "sentencepiece",
        "sentencepiece",
        "google.protobuf",
    )


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write the files of a tokenizer of transformers, so that transformers 4 and 5 both read them.

    Args:
        tokenizer: Tokenizer of transformers.
        folder: Folder of the checkpoint.
    """
    tokenizer.save_pretrained(folder)
    file = folder / _CONFIG_FILE
    settings = shared_tokenizer_settings(read_json(file, dict))
    file.write_text(dump_json(settings, indent=2) + "\n", encoding="utf-8")
