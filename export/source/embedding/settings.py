"""Settings of sentence embeddings, from all sentence-transformers files of a checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch

from encort.export.source.embedding.module_list import DROPOUT, read_modules, splade_folder
from encort.export.source.embedding.poolings import Poolings
from encort.export.source.embedding.prompts import PromptSettings
from encort.export.source.embedding.torch_modules import NormalizeModule, read_module
from encort.export.source.embedding.transformer_settings import TransformerSettings
from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class EmbeddingSettings:
    """Settings of sentence embeddings.

    Attributes:
        encoder_folder: Folder of the encoder and the tokenizer; the checkpoint's own folder, or one inside of it.
        transformer: What is done around the encoder.
        poolings: Poolings; a mean if the folder has no setting.
        modules: Modules between the pooling and the normalization, in their order.
        normalize: Whether embeddings have length 1; true if the folder has no `modules.json`.
        prompts: Prompts, similarity and number of dimensions.
    """

    encoder_folder: Path
    transformer: TransformerSettings
    poolings: Poolings
    modules: tuple[torch.nn.Module, ...]
    normalize: bool
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
        encoder, pooled, *others = read_modules(folder)
        transformer = TransformerSettings.read(encoder.folder)
        if transformer.predicts_words and splade_folder(folder) is None:
            raise CheckpointError(
                f"sentence_bert_config.json of {folder} pools logits of words (fill-mask), which a bundle can do for "
                "SPLADE alone"
            )
        modules = [read_module(entry) for entry in others if entry.kind != DROPOUT]
        normalize = bool(modules) and isinstance(modules[-1], NormalizeModule)
        return cls(
            encoder_folder=encoder.folder,
            transformer=transformer,
            poolings=Poolings.read(pooled.folder, methods=pooling),
            modules=tuple(modules[:-1] if normalize else modules),
            normalize=normalize,
            prompts=PromptSettings.read(folder),
        )
