"""Choose the form in which a checkpoint has token vectors and sparse embeddings."""

from pathlib import Path
from typing import Any

from encort.export.source.embedding.prompts import PromptSettings
from encort.export.source.retrieval.bge_m3 import read_bge_m3
from encort.export.source.retrieval.pylate import read_pylate
from encort.export.source.retrieval.settings import RetrievalSettings
from encort.export.source.retrieval.splade import SpladePooling
from encort.runtime.bundle.manifest import Sparse


def read_retrieval(
    folder: Path, config: Any, tokenizer: Any, expansion: SpladePooling | None, prompts: PromptSettings
) -> RetrievalSettings:
    """Return the token vectors and sparse embeddings of a checkpoint, which mostly has none.

    Args:
        folder: Folder of the checkpoint.
        config: Settings of its encoder, of transformers.
        tokenizer: Its tokenizer, of transformers.
        expansion: How words of the vocabulary get weights, of SPLADE.
        prompts: The folder's prompts.

    Raises:
        CheckpointError: A file is damaged, or has a setting that a bundle cannot hold.
    """
    if expansion is not None:
        sparse = Sparse(prompts=prompts.prompts, default_prompt=prompts.default_prompt)
        return RetrievalSettings(expansion=expansion, sparse=sparse, has_sentence_embedding=False)
    return read_pylate(folder, tokenizer) or read_bge_m3(folder, config, tokenizer) or RetrievalSettings()
