"""Read `config_sentence_transformers.json`: prompts, similarity and number of dimensions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encort.runtime.bundle.manifest import Similarity
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.output.escaping import is_unicode

FILE = "config_sentence_transformers.json"


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """Settings of a whole sentence-transformers model; see `Embedding`."""

    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: Similarity = Similarity.COSINE
    truncate_dim: int | None = None

    @classmethod
    def read(cls, folder: Path) -> "PromptSettings":
        """Read the settings of a folder, which may have none.

        Raises:
            CheckpointError: The file is damaged, or its settings make no sense.
        """
        file = folder / FILE
        settings = read_json(file, dict) if file.exists() else {}
        prompts = _prompts(file, settings.get("prompts") or {})
        return cls(
            prompts=prompts,
            default_prompt=_default_prompt(file, settings.get("default_prompt_name"), prompts),
            similarity=_similarity(file, settings.get("similarity_fn_name")),
            truncate_dim=_truncate_dim(file, settings.get("truncate_dim")),
        )


def _prompts(file: Path, prompts: Any) -> dict[str, str]:
    if not isinstance(prompts, dict):
        raise CheckpointError(f"{file}: prompts is {prompts!r}, expected texts by name")
    for name, text in prompts.items():
        if not (text is None or isinstance(text, str)) or not is_unicode(name) or not is_unicode(text or ""):
            raise CheckpointError(f"{file}: the prompt {name!r} is {text!r}, expected a text")
    # sentence-transformers takes null for an empty prompt.
    return {name: text or "" for name, text in prompts.items()}


def _default_prompt(file: Path, name: Any, prompts: Mapping[str, str]) -> str | None:
    if name is not None and name not in prompts:
        known = ", ".join(map(repr, prompts)) or "none"
        raise CheckpointError(f"{file}: default_prompt_name is {name!r}, which is none of its prompts: {known}")
    return None if name is None else str(name)


def _similarity(file: Path, name: Any) -> Similarity:
    try:
        return Similarity.COSINE if name is None else Similarity(name)
    except ValueError:
        known = ", ".join(Similarity)
        raise CheckpointError(f"{file}: similarity_fn_name is {name!r}, expected one of {known}") from None


def _truncate_dim(file: Path, limit: Any) -> int | None:
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(f"{file}: truncate_dim is {limit!r}, expected a whole number above 0")
    return limit
