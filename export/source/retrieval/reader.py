"""Choose the form in which a checkpoint has token vectors and sparse embeddings."""

from pathlib import Path
from typing import Any

from encort.export.source.retrieval.bge_m3 import read_bge_m3
from encort.export.source.retrieval.pylate import read_pylate
from encort.export.source.retrieval.settings import RetrievalSettings


def read_retrieval(folder: Path, config: Any, tokenizer: Any) -> RetrievalSettings:
    """Return the token vectors and sparse embeddings of a checkpoint, which mostly has none.

    Args:
        folder: Folder of the checkpoint.
        config: Settings of its encoder, of transformers.
        tokenizer: Its tokenizer, of transformers.

    Raises:
        CheckpointError: A file is damaged, or has a setting that a bundle cannot hold.
    """
    return read_pylate(folder, tokenizer) or read_bge_m3(folder, config, tokenizer) or RetrievalSettings()
