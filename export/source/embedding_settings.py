"""Read the settings of sentence embeddings from a checkpoint's sentence-transformers files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_POOLINGS = {"pooling_mode_cls_token": Pooling.CLS, "pooling_mode_mean_tokens": Pooling.MEAN}
_MODULES = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Settings of sentence embeddings.

    Attributes:
        pooling: Pooling; the mean if the folder has no setting.
        normalize: Whether embeddings have length 1; true if the folder has no `modules.json`.
        max_length: Largest number of tokens of one input; None if the folder has no limit.
    """

    pooling: Pooling
    normalize: bool
    max_length: int | None

    @classmethod
    def read(cls, folder: Path, *, pooling: Pooling | None = None) -> "EmbeddingSettings":
        """Read the settings from `modules.json`, `1_Pooling/config.json` and `sentence_bert_config.json`.

        Each of these files may be missing.

        Args:
            folder: Folder of the checkpoint.
            pooling: Pooling to use instead of the folder's.

        Raises:
            CheckpointError: A file is damaged, or asks for something that a bundle cannot do.
        """
        _check_prompts(folder)
        return cls(normalize=_normalize(folder), pooling=pooling or _pooling(folder), max_length=_max_length(folder))


def _pooling(folder: Path) -> Pooling:
    file = folder / "1_Pooling" / "config.json"
    modes = _read(file, dict)
    enabled = [name for name, value in modes.items() if name.startswith("pooling_mode_") and value is True]
    if not file.exists():
        return Pooling.MEAN
    if len(enabled) != 1 or enabled[0] not in _POOLINGS:
        raise CheckpointError(f"{file} asks for {' and '.join(enabled) or 'no pooling'}; choose one with --pooling")
    return _POOLINGS[enabled[0]]


def _normalize(folder: Path) -> bool:
    file = folder / "modules.json"
    if not file.exists():
        return True
    kinds = [str(module.get("type")).split(".")[-1] if isinstance(module, dict) else "" for module in _read(file, list)]
    other = [kind for kind in kinds if kind not in _MODULES]
    if other:
        raise CheckpointError(
            f"{file} has a module {other[0]!r}, which a bundle cannot hold; it may have {', '.join(_MODULES)}"
        )
    return "Normalize" in kinds


def _max_length(folder: Path) -> int | None:
    file = folder / "sentence_bert_config.json"
    settings = _read(file, dict)
    if settings.get("do_lower_case"):
        raise CheckpointError(f"{file} lowers the case of texts outside of the tokenizer, which a bundle cannot do")
    limit = settings.get("max_seq_length")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(f"{file}: max_seq_length is {limit!r}, expected a whole number above 0")
    return limit


def _check_prompts(folder: Path) -> None:
    file = folder / "config_sentence_transformers.json"
    name = _read(file, dict).get("default_prompt_name")
    if name is not None:
        raise CheckpointError(f"{file} puts the prompt {name!r} before every text, which a bundle cannot do yet")


def _read(file: Path, kind: type[Any]) -> Any:
    """Return the value in a JSON file; an empty one if there is no file."""
    return read_json(file, kind) if file.exists() else kind()
