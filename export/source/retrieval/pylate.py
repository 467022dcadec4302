"""Read ColBERT as PyLate saves it: a sentence-transformers folder of an encoder and `Dense` layers on its tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from encort.export.source.embedding.module_list import read_token_modules
from encort.export.source.embedding.prompts import FILE
from encort.export.source.embedding.torch_modules import read_module
from encort.export.source.retrieval.settings import RetrievalSettings
from encort.export.source.retrieval.token_prompts import ColbertSettings
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_NAMES: Mapping[str, tuple[str, type[Any]]] = {
    "query_prefix": ("query_marker", str),
    "document_prefix": ("document_marker", str),
    "query_length": ("query_length", int),
    "document_length": ("document_length", int),
    "do_query_expansion": ("expands", bool),
    "attend_to_expansion_tokens": ("attends_expansion", bool),
    "skiplist_words": ("skipped_words", list),
}
"""Names and types of PyLate's settings, with their names in `ColbertSettings`."""


def read_pylate(folder: Path, tokenizer: Any) -> RetrievalSettings | None:
    """Return the settings of a PyLate folder; None for any other folder.

    Raises:
        CheckpointError: A file is damaged, or has a setting that a bundle cannot hold.
    """
    modules = read_token_modules(folder)
    if not modules:
        return None
    file = folder / FILE
    saved = read_json(file, dict) if file.exists() else {}
    if any((saved.get("prompts") or {}).values()):
        raise CheckpointError(
            f"{file}: a ColBERT model with both markers and prompts cannot be exported; empty prompts"
        )
    return RetrievalSettings(
        projection=tuple(read_module(entry, of_tokens=True) for entry in modules),
        late_interaction=_colbert(file, saved).late_interaction(str(file), tokenizer),
        has_sentence_embedding=False,
    )


def _colbert(file: Path, saved: Mapping[str, Any]) -> ColbertSettings:
    settings: dict[str, Any] = {"query_marker": "[Q] ", "document_marker": "[D] "}
    for name, (own, kind) in _NAMES.items():
        value = saved.get(name)
        if value is not None:
            if type(value) is not kind:
                raise CheckpointError(f"{file}: {name} is {value!r}, expected {kind.__name__}")
            settings[own] = value
    return ColbertSettings(**settings)
