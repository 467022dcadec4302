"""Read `modules.json`: the modules of a sentence-transformers folder, in the order in which they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

FILE = "modules.json"
TRANSFORMER, POOLING, NORMALIZE, DROPOUT, DENSE = "Transformer", "Pooling", "Normalize", "Dropout", "Dense"
SPLADE = "SpladePooling"
_EARLIER = {"MLMTransformer": TRANSFORMER}
"""Kinds that sentence-transformers has renamed."""
_CHOOSES_ADAPTER = "custom_st.Transformer"
"""Type in jina-embeddings-v3, whose code is not run: it chooses the adapter of a task, as an export does."""
_KINDS = (TRANSFORMER, POOLING, DENSE, "LayerNorm", NORMALIZE, DROPOUT, SPLADE)
"""Kinds of modules that a bundle can hold: the last part of their type."""
_PACKAGES = ("sentence_transformers", "pylate")


@dataclass(frozen=True)
class ModuleEntry:
    """One module.

    Attributes:
        kind: Name of its class in sentence-transformers, without the path, which changes between versions.
        folder: Folder with its settings and weights.
    """

    kind: str
    folder: Path


def read_modules(folder: Path) -> list[ModuleEntry]:
    """Return the modules of a folder: an encoder, a pooling, and any number of others.

    Without `modules.json`, or with an encoder alone as in a cross-encoder, the others are a normalization.

    Raises:
        CheckpointError: The file is damaged, or has a module that a bundle cannot hold.
    """
    file = folder / FILE
    modules = [_entry(file, module) for module in read_json(file, list)] if file.exists() else []
    kinds = [module.kind for module in modules]
    if _has_token_modules(kinds) or kinds == [TRANSFORMER, SPLADE]:
        modules, kinds = modules[:1], kinds[:1]
    if kinds[:2] == [TRANSFORMER, POOLING] and not {TRANSFORMER, POOLING} & {*kinds[2:]}:
        return modules
    if kinds not in ([], [TRANSFORMER]):
        raise CheckpointError(
            f"{file} runs {', '.join(kinds)}; a bundle can hold one {TRANSFORMER}, then one {POOLING}, then others"
        )
    encoder = modules[0].folder if modules else folder
    # Folders that lost their modules.json may still have the folder that sentence-transformers gives the pooling.
    return [
        ModuleEntry(TRANSFORMER, encoder),
        ModuleEntry(POOLING, folder / "1_Pooling"),
        ModuleEntry(NORMALIZE, folder / "2_Normalize"),
    ]


def read_token_modules(folder: Path) -> list[ModuleEntry]:
    """Return the modules on the tokens of a folder without a pooling, as PyLate saves ColBERT; none of other folders.

    Raises:
        CheckpointError: See `read_modules`.
    """
    file = folder / FILE
    modules = [_entry(file, module) for module in read_json(file, list)] if file.exists() else []
    return modules[1:] if _has_token_modules([module.kind for module in modules]) else []


def splade_folder(folder: Path) -> Path | None:
    """Return the folder of the pooling of a sentence-transformers `SparseEncoder`; None for other folders.

    Raises:
        CheckpointError: See `read_modules`.
    """
    file = folder / FILE
    modules = [_entry(file, module) for module in read_json(file, list)] if file.exists() else []
    return modules[1].folder if [module.kind for module in modules] == [TRANSFORMER, SPLADE] else None


def _has_token_modules(kinds: Sequence[str]) -> bool:
    return list(kinds[:1]) == [TRANSFORMER] and set(kinds[1:]) == {DENSE}


def _has_adapters(folder: Path) -> bool:
    config = folder / "config.json"
    return config.exists() and "lora_adaptations" in read_json(config, dict)


def _entry(file: Path, module: Any) -> ModuleEntry:
    type_, path = (module.get("type"), module.get("path")) if isinstance(module, dict) else (None, None)
    package, _, name = str(type_).rpartition(".")
    kind = _EARLIER.get(name, name)
    is_known = package.partition(".")[0] in _PACKAGES or (type_ == _CHOOSES_ADAPTER and _has_adapters(file.parent))
    if not is_known or kind not in _KINDS:
        raise CheckpointError(
            f"{file} has a module {type_!r}, which a bundle cannot hold; it may have {', '.join(_KINDS)} of "
            "sentence-transformers"
        )
    if not isinstance(path, str) or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise CheckpointError(f"{file}: path of {kind} is {path!r}, expected a folder inside of {file.parent}")
    return ModuleEntry(kind, file.parent / path)
