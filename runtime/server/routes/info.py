"""`/info`: what is served, as text-embeddings-inference tells it, and what runs it."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from encort.runtime.bundle.kernels import kernels_instruction_set
from encort.runtime.bundle.manifest import Manifest, Precision, Task
from encort.runtime.engine.cores import available_cores
from encort.runtime.server.endpoints import Endpoint, Reply, Server
from encort.runtime.server.errors import TEI
from encort.runtime.server.models import ServedModel
from encort.runtime.server.operations.info import facts
from encort.runtime.server.operations.shared import SharedFolder
from encort.runtime.server.ranking import tasks_of
from encort.runtime.tasks.specs import CLASSIFIERS

_DTYPES: Mapping[Precision, str] = {
    Precision.FP32: "float32",
    Precision.FP16: "float16",
    Precision.BF16: "bfloat16",
    Precision.INT8: "int8",
}


async def info(server: Server, _: None) -> Reply:
    """Return the first model in the form of text-embeddings-inference, and in `models` what runs each model."""
    served, settings = server.models.get(), server.settings
    manifest = served.model.manifest
    source = manifest.sources[0] if manifest.sources else None
    content = {
        "model_id": served.name if source is None else source.model,
        "model_sha": None if source is None else source.revision,
        "model_dtype": _DTYPES[served.model.variant.precision],
        "served_model_name": served.name,
        "model_type": _model_type(manifest),
        # A request that waits has a token at least.
        "max_concurrent_requests": settings.queue_tokens,
        "max_input_length": manifest.max_length,
        "max_batch_tokens": settings.queue_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_items,
        "auto_truncate": True,
        "tokenization_workers": _threads(served),
        "version": version("encort"),
        "models": [_runs_on(served, server.shared) for served in server.models],
    }
    return Reply(content=content)


def _model_type(manifest: Manifest) -> dict[str, Any]:
    """Return the kind of the model by its first head, with its labels or its pooling."""
    if manifest.heads:
        head = manifest.heads[0]
        labels = {str(number): label for number, label in enumerate(head.labels)}
        kinds = {Task.TEXT_REGRESSION: "reranker", **dict.fromkeys(CLASSIFIERS, "classifier")}
        ids = {label: number for number, label in enumerate(head.labels)}
        return {kinds.get(head.task, str(head.task)): {"id2label": labels, "label2id": ids}}
    pooling = [] if manifest.embedding is None else manifest.embedding.pooling
    return {"embedding": {"pooling": "+".join(pooling) or "none"}}


def _runs_on(served: ServedModel, shared: SharedFolder | None) -> dict[str, Any]:
    """Return the variant of a model and what it runs on."""
    model, variant = served.model, served.model.variant
    return {
        "name": served.name,
        "tasks": tasks_of(served),
        "variant": variant.name,
        "device": variant.device,
        "precision": variant.precision,
        "layout": variant.layout,
        "instruction_set": kernels_instruction_set() if variant.is_native else variant.instruction_set,
        "threads": _threads(served),
        "max_length": model.manifest.max_length,
        **facts(served, shared),
    }


def _threads(served: ServedModel) -> int:
    return served.model.options.threads or available_cores()


ENDPOINTS = [
    Endpoint(
        paths=("/info",), summary="What is served, and what runs it", contract=TEI, handler=info, result=dict[str, Any]
    )
]
