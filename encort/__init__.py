"""encort: fine-tune BERT-family encoders, export them to verified ONNX bundles, serve them from ONNX Runtime.

    import encort

    with encort.load("banking.bundle") as model:
        model.embed(["a text", "another"])     # float32 (2, dim)
        model.classify(["a text"])             # [Classification(label=..., score=...)]

Names are looked up when they are first used, so that `import encort` costs nothing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from encort import errors
    from encort.runtime.bundle.bundle import Bundle
    from encort.runtime.bundle.manifest import HeadInfo, Manifest, Task, Variant
    from encort.runtime.engine.costs import Costs
    from encort.runtime.engine.stats import Histogram, Stats
    from encort.runtime.model import Model, load
    from encort.runtime.serving.service import AsyncService, RequestOptions, Service, ServiceContext
    from encort.runtime.tasks.results import Answer, Classification, Matches, Span
    from encort.runtime.text.token_batch import TokenBatch

__version__ = "0.1.0"

if not Path(__file__).with_name("runtime").is_dir():
    raise ImportError(
        f"{Path(__file__).parent} lacks its rooms, which are symbolic links in a checkout of encort: check out again "
        "with `git -c core.symlinks=true clone`, or install the wheel with `pip install encort`"
    )

__all__ = [
    "Answer",
    "AsyncService",
    "Bundle",
    "Classification",
    "Costs",
    "HeadInfo",
    "Histogram",
    "Manifest",
    "Matches",
    "Model",
    "RequestOptions",
    "Service",
    "ServiceContext",
    "Span",
    "Stats",
    "Task",
    "TokenBatch",
    "Variant",
    "errors",
    "load",
]

_HOMES = {
    "Answer": "encort.runtime.tasks.results",
    "AsyncService": "encort.runtime.serving.service",
    "Bundle": "encort.runtime.bundle.bundle",
    "Classification": "encort.runtime.tasks.results",
    "Costs": "encort.runtime.engine.costs",
    "Matches": "encort.runtime.tasks.results",
    "HeadInfo": "encort.runtime.bundle.manifest",
    "Histogram": "encort.runtime.engine.stats",
    "Manifest": "encort.runtime.bundle.manifest",
    "Model": "encort.runtime.model",
    "RequestOptions": "encort.runtime.serving.service",
    "Service": "encort.runtime.serving.service",
    "ServiceContext": "encort.runtime.serving.service",
    "Span": "encort.runtime.tasks.results",
    "Stats": "encort.runtime.engine.stats",
    "Task": "encort.runtime.bundle.manifest",
    "TokenBatch": "encort.runtime.text.token_batch",
    "Variant": "encort.runtime.bundle.manifest",
    "load": "encort.runtime.model",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("encort.errors")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'encort' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
