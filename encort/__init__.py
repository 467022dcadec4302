"""encort: fine-tune BERT-family encoders, export them to verified ONNX bundles, serve them from ONNX Runtime.

    import encort

    with encort.load("banking.bundle") as model:
        model.embed(["a text", "another"])     # float32 (2, dim)
        model.classify(["a text"])             # [Classification(label=..., score=...)]

Names are imported when they are first used, so that `import encort` is instant.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encort import errors
    from encort.runtime.bundle.bundle import Bundle
    from encort.runtime.bundle.manifest import HeadInfo, Manifest, Precision, Task, Variant
    from encort.runtime.common.aggregation import Aggregation
    from encort.runtime.engine.costs import Costs
    from encort.runtime.engine.stats import Histogram, Stats
    from encort.runtime.hub.push import push
    from encort.runtime.model import Model, load
    from encort.runtime.options import LoadOptions
    from encort.runtime.serving.async_service import AsyncService
    from encort.runtime.serving.calls import RequestOptions
    from encort.runtime.serving.service import Service, ServiceContext
    from encort.runtime.tasks.results import (
        AllEmbeddings,
        Answer,
        Answers,
        Classification,
        Masked,
        Matches,
        Ranked,
        Span,
        SparseEmbedding,
        TaggedWord,
        Word,
    )
    from encort.runtime.text.prompts import Prompt
    from encort.runtime.text.token_batch import TokenBatch
    from encort.runtime.verification.compat import Compatibility, compat

__version__ = "0.1.0"

__all__ = [
    "Aggregation",
    "AllEmbeddings",
    "Answer",
    "Answers",
    "AsyncService",
    "Bundle",
    "Classification",
    "Compatibility",
    "Costs",
    "HeadInfo",
    "Histogram",
    "LoadOptions",
    "Manifest",
    "Masked",
    "Matches",
    "Model",
    "Precision",
    "Prompt",
    "Ranked",
    "RequestOptions",
    "Service",
    "ServiceContext",
    "Span",
    "SparseEmbedding",
    "Stats",
    "TaggedWord",
    "Task",
    "TokenBatch",
    "Variant",
    "Word",
    "compat",
    "errors",
    "load",
    "push",
]

_MODULES = {
    "encort.runtime.bundle.bundle": ["Bundle"],
    "encort.runtime.common.aggregation": ["Aggregation"],
    "encort.runtime.bundle.manifest": ["HeadInfo", "Manifest", "Precision", "Task", "Variant"],
    "encort.runtime.engine.costs": ["Costs"],
    "encort.runtime.engine.stats": ["Histogram", "Stats"],
    "encort.runtime.hub.push": ["push"],
    "encort.runtime.model": ["Model", "load"],
    "encort.runtime.options": ["LoadOptions"],
    "encort.runtime.serving.calls": ["RequestOptions"],
    "encort.runtime.serving.async_service": ["AsyncService"],
    "encort.runtime.serving.service": ["Service", "ServiceContext"],
    "encort.runtime.tasks.results": [
        "AllEmbeddings",
        "Answer",
        "Answers",
        "Classification",
        "Masked",
        "Matches",
        "Ranked",
        "Span",
        "SparseEmbedding",
        "TaggedWord",
        "Word",
    ],
    "encort.runtime.text.prompts": ["Prompt"],
    "encort.runtime.text.token_batch": ["TokenBatch"],
    "encort.runtime.verification.compat": ["Compatibility", "compat"],
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not Path(__file__).with_name("runtime").is_dir():
    raise ImportError(
        f"{Path(__file__).parent} lacks its subpackages, which are symbolic links in a checkout: check out again with "
        "`git -c core.symlinks=true clone`, or install the published package with `pip install encort`"
    )


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("encort.errors")
    if name in _MODULE_OF:
        return getattr(import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module 'encort' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
