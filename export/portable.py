"""The portable variant: `model.onnx` by Optimum, in standard operators, for the rest of the ecosystem.

It loads in Optimum's ORTModel classes and in sentence-transformers, which without files of its own pools by the mean.
"""

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import Graph, axes
from encort.export.graph.heads import Encoded, pooler_output, sentence_output
from encort.export.graph.layouts import Padded
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    PORTABLE,
    Device,
    Layout,
    Pooling,
    Precision,
    Task,
    Variant,
)
from encort.runtime.common.errors import CheckpointError

FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx_data"
_LARGEST_FILE = 2**31 - 2**20
"""Bytes that fit into one ONNX file; protobuf ends at 2 GiB."""
_SMALLEST_MASK = np.float32(-30_000)
"""Far below every score, and finite in float16."""
_OPTIMUM_TASKS = {
    Task.FEATURE_EXTRACTION: "feature-extraction",
    Task.TEXT_CLASSIFICATION: "text-classification",
    Task.MULTI_LABEL_CLASSIFICATION: "text-classification",
    Task.TEXT_REGRESSION: "text-classification",
    Task.TOKEN_CLASSIFICATION: "token-classification",
    Task.QUESTION_ANSWERING: "question-answering",
}
_INPUTS = ("input_ids", "token_type_ids", "attention_mask")
_AXES = {"batch_size": "batch", "sequence_length": "sequence"}


def write_portable(trained: ExportSource, folder: Path) -> Variant:
    """Write `model.onnx`, with the axes named as in every variant, and sentence embeddings for an encoder alone.

    Raises:
        CheckpointError: Optimum cannot export the model; the message says why.
    """
    model = _exported(trained)
    unknown = [str(value.name) for value in model.graph.inputs if value.name not in _INPUTS]
    if unknown:
        source = trained.checkpoints[0]
        raise CheckpointError(
            f"{source.name} ({source.architecture}) reads {', '.join(unknown)}, which no encoder does; "
            "encort exports encoders only"
        )
    needed = {"attention_mask", *(["token_type_ids"] if trained.token_range.types > 1 else [])}
    if missing := needed - {str(value.name) for value in model.graph.inputs}:
        raise CheckpointError(f"Optimum's graph of {trained.checkpoints[0].name} reads no {', '.join(sorted(missing))}")
    _limit_masks(model.graph)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([_AXES.get(str(axis), axis) for axis in _shape(value)])
    if trained.embedding is not None and not trained.heads:
        _append_sentence_embedding(model.graph, trained)
    is_large = sum(tensor.nbytes for tensor in _weights(model)) > _LARGEST_FILE
    ir.save(model, folder / FILE, external_data=WEIGHTS_FILE if is_large else None)
    return Variant(
        name=PORTABLE,
        file=FILE,
        weights_file=WEIGHTS_FILE if is_large else None,
        device=Device.CPU,
        precision=Precision.FP32,
        layout=Layout.PADDED,
        instruction_set=None,
        inputs=axes(model.graph.inputs),
        outputs=axes(model.graph.outputs),
        fidelity=None,
    )


def _exported(trained: ExportSource) -> ir.Model:
    from optimum.exporters.onnx import onnx_export_from_model

    source = trained.checkpoints[0]
    task = _OPTIMUM_TASKS.get(source.task)
    if len(trained.checkpoints) > 1 or trained.embedding is None or task is None:
        raise CheckpointError(
            f"a portable graph holds one encoder and a head for one of these: {', '.join(_OPTIMUM_TASKS)}"
        )
    try:
        # Optimum changes the model it is given, which is also the oracle.
        with TemporaryDirectory() as folder, _quiet():
            onnx_export_from_model(copy.deepcopy(source.model), folder, task=task, do_validation=False)
            model = ir.load(Path(folder) / FILE)
            ir.external_data.load_to_model(model)
    except Exception as error:  # Optimum and torch raise whatever their parts raise
        raise CheckpointError(f"Optimum cannot export {source.name} ({source.architecture}): {error}") from error
    return model


def _limit_masks(graph: ir.Graph) -> None:
    """Bring what masks add to scores into the range of half precisions.

    There the smallest float32 is infinite, and what OpenVINO makes of zero times infinity in bfloat16 is not even NaN.
    """
    for node in graph:
        value = node.attributes.get("value") if node.op_type == "Constant" else None
        if value is not None and value.type is ir.AttributeType.TENSOR:
            array = value.as_tensor().numpy()
            if array.dtype == np.float32 and array.size and array.min() < _SMALLEST_MASK:
                limited = np.maximum(array, _SMALLEST_MASK)
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(limited))


def _append_sentence_embedding(graph: ir.Graph, trained: ExportSource) -> None:
    assert trained.embedding is not None
    values = {str(value.name): value for value in (*graph.inputs, *graph.outputs)}
    hidden = values[LAST_HIDDEN_STATE]
    builder = Graph(graph)
    lie = Padded(builder, values["input_ids"], values["attention_mask"])
    pooled = _pooled(builder, lie.first(hidden), trained) if trained.embedding.pooling is Pooling.POOLER else None
    sentence_output(builder, Encoded(hidden, pooled, lie), trained.embedding, int(_shape(hidden)[-1]))


def _pooled(graph: Graph, first: ir.Value, trained: ExportSource) -> ir.Value:
    """The pooler, which Optimum leaves out."""
    pooler = None if trained.description is None else trained.description.encoders[0].pooler
    if pooler is None:
        raise CheckpointError("the portable graph has no pooler; pool by mean or cls (--pooling)")
    return pooler_output(graph, replace(pooler, name=f"encort.{pooler.name}"), first)


def _shape(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape]


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    return (value.const_value for value in model.graph.initializers.values() if value.const_value is not None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Optimum's and the tracer's remarks, which tell the user nothing to do."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
