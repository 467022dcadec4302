"""Trace the graph of an architecture that encort does not author, with the exporter of transformers or with Optimum."""

import contextlib
import copy
import inspect
import io
import itertools
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
import transformers

from encort.export.graph.builder import STANDARD_OPSETS, GraphBuilder, axes
from encort.export.graph.layouts.nodes import SMALLEST_MASK
from encort.export.graph.layouts.padded import Padded
from encort.export.graph.sentence import Encoded, sentence_output
from encort.export.source.checkpoint import Checkpoint
from encort.export.source.embedding.torch_modules import describe_modules
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import TokenRange
from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, POOLER_OUTPUT, Task
from encort.runtime.common.checkpoints.majors import is_older
from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.extras import require

Exporter = Callable[[Checkpoint, Mapping[str, torch.Tensor]], ir.Model]
"""Traces a copy of the checkpoint's model with sample inputs."""
_OPTIMUM_TASKS = {
    Task.FEATURE_EXTRACTION: "feature-extraction",
    Task.TEXT_CLASSIFICATION: "text-classification",
    Task.MULTI_LABEL_CLASSIFICATION: "text-classification",
    Task.TEXT_REGRESSION: "text-classification",
    Task.TOKEN_CLASSIFICATION: "token-classification",
    Task.QUESTION_ANSWERING: "question-answering",
    Task.FILL_MASK: "fill-mask",
}
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_AXES = ("batch", "sequence")


def trace(source: ExportSource) -> ir.Model:
    """Return a graph in standard operators. A model without a head also gets sentence embeddings as an output.

    Raises:
        CheckpointError: The model cannot be traced; the message says why.
        MissingExtraError: No exporter is installed.
    """
    if len(source.checkpoints) > 1:
        raise CheckpointError("encort has no graph for several heads on this architecture; export each one alone")
    checkpoint = source.checkpoints[0]
    name = f"{checkpoint.name} ({checkpoint.architecture})"
    exporter, samples = _installed_exporter(name), _samples(source)
    if _has_decoder(checkpoint.model, samples):
        raise CheckpointError(f"{name} has a decoder; encort exports encoders only")
    try:
        with _quiet():
            model = exporter(checkpoint, samples)
    except Exception as error:  # exporters raise errors of several libraries
        raise CheckpointError(f"{name} cannot be traced: {error}") from error
    _check_names(model, source, name)
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape(_axes(value))
    _limit_masks(model.graph)
    _select_outputs(model.graph, source)
    if source.embedding is not None and not source.heads:
        _append_sentence_embedding(model.graph, source)
    return model


@torch.inference_mode()
def _has_decoder(model: Any, samples: Mapping[str, torch.Tensor]) -> bool:
    """Return whether the model is made to generate texts: it decodes, or gives keys and values for the next token."""
    if model.config.is_encoder_decoder:
        return True
    result = model(**{name: tensor[:, :1] for name, tensor in samples.items()})
    return getattr(result, "past_key_values", None) is not None


def _installed_exporter(name: str) -> Exporter:
    what = f"encort has no graph for {name}, and tracing it"
    if is_older(transformers):
        require(what, "optimum", "optimum.exporters.onnx")
        return _trace_with_optimum
    require(what, "trace", "transformers.exporters.exporter_onnx", "onnxscript")
    return _trace_with_transformers


def _trace_with_transformers(checkpoint: Checkpoint, samples: Mapping[str, torch.Tensor]) -> ir.Model:
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    dynamic = dict.fromkeys(range(len(_AXES)), torch.export.Dim.DYNAMIC)
    shapes = dict.fromkeys(samples, dynamic)
    config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, opset_version=STANDARD_OPSETS[""])
    # The exporter changes the model, and the oracle needs it unchanged.
    exported = OnnxExporter().export(copy.deepcopy(checkpoint.model), dict(samples), config=config)
    model: ir.Model = exported.program
    return model


def _trace_with_optimum(checkpoint: Checkpoint, _: Mapping[str, torch.Tensor]) -> ir.Model:
    from optimum.exporters.onnx import onnx_export_from_model

    task = _OPTIMUM_TASKS.get(checkpoint.task)
    if task is None:
        raise ValueError(f"Optimum has no graph for {checkpoint.task}")
    with TemporaryDirectory() as folder:
        onnx_export_from_model(copy.deepcopy(checkpoint.model), folder, task=task, do_validation=False)
        model = ir.load(Path(folder) / "model.onnx")
        ir.external_data.load_to_model(model)
    return model


def _samples(source: ExportSource) -> dict[str, torch.Tensor]:
    """Return inputs to trace, `(2, 7)` int64: neither size is 1, which a trace would keep."""
    accepted = set(inspect.signature(source.checkpoints[0].model.forward).parameters)
    if TokenRange.of(source).types == 1:
        accepted.discard("token_type_ids")
    zeros = torch.zeros(2, min(7, source.max_length), dtype=torch.int64)
    return {name: zeros + (name != "token_type_ids") for name in _INPUTS if name in accepted}


def _check_names(model: ir.Model, source: ExportSource, name: str) -> None:
    names = {str(value.name) for value in model.graph.inputs}
    if unknown := names - set(_INPUTS):
        raise CheckpointError(
            f"{name} reads {', '.join(sorted(unknown))}, which no encoder does; encort exports encoders only"
        )
    needed = {"input_ids", "attention_mask", *(["token_type_ids"] if TokenRange.of(source).types > 1 else [])}
    if missing := needed - names:
        raise CheckpointError(f"the traced graph of {name} reads no {', '.join(sorted(missing))}")


def _axes(value: ir.Value) -> list[int | str]:
    """Return the axes of an input or output, with the names of the manifest for those that vary."""
    assert value.shape is not None
    return [axis if isinstance(axis, int) else name for axis, name in itertools.zip_longest(value.shape, _AXES)]


def _limit_masks(graph: ir.Graph) -> None:
    """Limit the numbers that masks add to scores to the range of half precisions; see `SMALLEST_MASK`."""
    for node in graph:
        value = node.attributes.get("value") if node.op_type == "Constant" else None
        if value is not None and value.type is ir.AttributeType.TENSOR:
            node.attributes["value"] = ir.AttrTensor("value", _limited(value.as_tensor()))
    for initializer in graph.initializers.values():
        if initializer.const_value is not None and initializer.const_value.size == 1:
            initializer.const_value = _limited(initializer.const_value)


def _limited(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    array = tensor.numpy()
    if array.dtype != np.float32 or not array.size or array.min() >= SMALLEST_MASK:
        return tensor
    return ir.tensor(np.maximum(array, np.float32(SMALLEST_MASK)), name=tensor.name)


def _select_outputs(graph: ir.Graph, source: ExportSource) -> None:
    """Remove outputs that no bundle has, such as the attention weights of a model that returns them."""
    names = {output for head in source.heads for output in head.outputs} or {LAST_HIDDEN_STATE, POOLER_OUTPUT}
    outputs = [value for value in graph.outputs if value.name in names]
    graph.outputs.clear()
    graph.outputs.extend(outputs)


def _append_sentence_embedding(graph: ir.Graph, source: ExportSource) -> None:
    assert source.embedding is not None
    values = {str(value.name): value for value in (*graph.inputs, *graph.outputs)}
    hidden = values[LAST_HIDDEN_STATE]
    builder = GraphBuilder(graph)
    layout = Padded(builder, values["input_ids"], values["attention_mask"])
    encoded = Encoded(hidden, values.get(POOLER_OUTPUT), layout)
    modules = describe_modules(source.checkpoints[0].embedding.modules)
    sentence_output(builder, encoded, source.embedding, modules, int(axes([hidden])[LAST_HIDDEN_STATE][-1]))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of the exporters, which ask for no action from the user."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
