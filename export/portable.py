"""Write the portable variant: `model.onnx`, made by Optimum from standard operators.

Optimum's ORTModel classes and sentence-transformers can load it. Without settings of its own in the folder,
sentence-transformers pools by the mean.
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

from encort.export.graph.builder import GraphBuilder, axes
from encort.export.graph.heads import pooler_output
from encort.export.graph.layouts import Padded
from encort.export.graph.sentence import Encoded, sentence_output
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import TokenRange
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
"""Largest size of a single ONNX file, in bytes; protobuf has a limit of 2 GiB."""
_SMALLEST_MASK = np.float32(-30_000)
"""Far below every score, and still finite in float16."""
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


def write_portable(source: ExportSource, folder: Path) -> Variant:
    """Write `model.onnx`, with the same names of axes as in the other variants.

    An encoder without a head also gets sentence embeddings as an output.

    Raises:
        CheckpointError: Optimum cannot export the model; the message says why.
    """
    model = _optimum_model(source, folder)
    _check_inputs(model, source)
    _limit_masks(model.graph)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([_AXES.get(str(axis), axis) for axis in _shape(value)])
    if source.embedding is not None and not source.heads:
        _append_sentence_embedding(model.graph, source)
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


def _optimum_model(source: ExportSource, folder: Path) -> ir.Model:
    from optimum.exporters.onnx import onnx_export_from_model

    checkpoint = source.checkpoints[0]
    task = _OPTIMUM_TASKS.get(checkpoint.task)
    if len(source.checkpoints) > 1 or source.embedding is None or task is None:
        raise CheckpointError(
            f"a portable graph holds one encoder and a head for one of these: {', '.join(_OPTIMUM_TASKS)}"
        )
    try:
        # Optimum changes the model that it exports, and the oracle needs it unchanged.
        with TemporaryDirectory(dir=folder) as name, _quiet():
            onnx_export_from_model(copy.deepcopy(checkpoint.model), name, task=task, do_validation=False)
            model = ir.load(Path(name) / FILE)
            ir.external_data.load_to_model(model)
    except Exception as error:  # Optimum and torch raise errors of several libraries
        raise CheckpointError(
            f"Optimum cannot export {checkpoint.name} ({checkpoint.architecture}): {error}"
        ) from error
    return model


def _check_inputs(model: ir.Model, source: ExportSource) -> None:
    checkpoint, names = source.checkpoints[0], [str(value.name) for value in model.graph.inputs]
    if unknown := [name for name in names if name not in _INPUTS]:
        raise CheckpointError(
            f"{checkpoint.name} ({checkpoint.architecture}) reads {', '.join(unknown)}, which no encoder does; "
            "encort exports encoders only"
        )
    needed = {"attention_mask", *(["token_type_ids"] if TokenRange.of(source).types > 1 else [])}
    if missing := needed - set(names):
        raise CheckpointError(f"Optimum's graph of {checkpoint.name} reads no {', '.join(sorted(missing))}")


def _limit_masks(graph: ir.Graph) -> None:
    """Limit the numbers that masks add to scores to the range of half precisions.

    The smallest float32 becomes infinite in half precision. OpenVINO in bfloat16 then computes zero times infinity, and
    its result is wrong without being NaN.
    """
    for node in graph:
        value = node.attributes.get("value") if node.op_type == "Constant" else None
        if value is not None and value.type is ir.AttributeType.TENSOR:
            array = value.as_tensor().numpy()
            if array.dtype == np.float32 and array.size and array.min() < _SMALLEST_MASK:
                limited = np.maximum(array, _SMALLEST_MASK)
                node.attributes["value"] = ir.AttrTensor("value", ir.tensor(limited))


def _append_sentence_embedding(graph: ir.Graph, source: ExportSource) -> None:
    assert source.embedding is not None
    values = {str(value.name): value for value in (*graph.inputs, *graph.outputs)}
    hidden = values[LAST_HIDDEN_STATE]
    builder = GraphBuilder(graph)
    layout = Padded(builder, values["input_ids"], values["attention_mask"])
    pooled = _pooled(builder, layout.first(hidden), source) if Pooling.POOLER in source.embedding.pooling else None
    sentence_output(builder, Encoded(hidden, pooled, layout), source.embedding, int(_shape(hidden)[-1]))


def _pooled(builder: GraphBuilder, first: ir.Value, source: ExportSource) -> ir.Value:
    """Write the pooler, which Optimum leaves out."""
    pooler = None if source.description is None else source.description.encoders[0].pooler
    if pooler is None:
        raise CheckpointError("the portable graph has no pooler; pool by mean or cls (--pooling)")
    return pooler_output(builder, replace(pooler, name=f"encort.{pooler.name}"), first)


def _shape(value: ir.Value) -> list[int | str]:
    assert value.shape is not None
    return [axis if isinstance(axis, int) else str(axis.value) for axis in value.shape]


def _weights(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    return (value.const_value for value in model.graph.initializers.values() if value.const_value is not None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of Optimum and of the tracer, which ask for no action from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
