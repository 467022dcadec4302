"""Settings of sentence embeddings, from all sentence-transformers files of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from encort.export.source.embedding.module_list import POOLING, read_modules
from encort.export.source.embedding.poolings import Poolings
from encort.export.source.embedding.prompts import PromptSettings
from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Settings of sentence embeddings.

    Attributes:
        pooling: Poolings; a mean if the folder has no setting.
        normalize: Whether embeddings have length 1; true if the folder has no `modules.json`.
        max_length: Largest number of tokens of one input; None if the folder has no limit.
        prompts: Prompts, similarity and number of dimensions.
    """

    pooling: list[Pooling]
    normalize: bool
    max_length: int | None
    prompts: PromptSettings

    @classmethod
    def read(cls, folder: Path, *, pooling: list[Pooling] | None = None) -> "EmbeddingSettings":
        """Read the settings from `modules.json` and the files that it names. Each file may be missing.

        Args:
            folder: Folder of the checkpoint.
            pooling: Poolings to use instead of the folder's.

        Raises:
            CheckpointError: A file is damaged, or asks for something that a bundle cannot do.
        """
        modules = read_modules(folder)
        pooling_folder = next(module.folder for module in modules if module.kind == POOLING)
        poolings = Poolings.read(pooling_folder, methods=pooling)
        if not poolings.include_prompt:
            raise CheckpointError(f"{pooling_folder} leaves prompts out of the pooling, which a bundle cannot do yet")
        return cls(
            pooling=poolings.methods,
            normalize="Normalize" in [module.kind for module in modules],
            max_length=_max_length(folder),
            prompts=PromptSettings.read(folder),
        )


def _max_length(folder: Path) -> int | None:
    file = folder / "sentence_bert_config.json"
    settings = read_json(file, dict) if file.exists() else {}
    if settings.get("do_lower_case"):
        raise CheckpointError(f"{file} lowers the case of texts outside of the tokenizer, which a bundle cannot do")
    limit = settings.get("max_seq_length")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(f"{file}: max_seq_length is {limit!r}, expected a whole number above 0")
    return limit
