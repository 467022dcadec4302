"""Packed graphs on a machine without a GPU: their one operator that only CUDA has, put together from others.

So a graph that was written for CUDA is verified where it is exported, in ONNX Runtime's CPU provider: its weights, its
inputs and every other node are the very ones. What a GPU's kernels make of it is seen when it is loaded on a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from encort.export.graph.builder import Function
from encort.export.graph.layouts import MASKED, MICROSOFT, TextBounds, columns_of
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.manifest import Layout, Variant
from encort.runtime.cuda.workers import DeviceSessions
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Runner, Session

OPERATOR = "PackedMultiHeadAttention"
OpenSession = Callable[[Bundle, Variant], Runner]
"""Opens a variant of a bundle."""
_DOMAIN = "encort"
_INPUTS = ("query", "key", "value", "bias", "token_offset", "cu_seqlens", "scores_bias")


def open_to_verify(bundle: Bundle, variant: Variant) -> Runner:
    """A session of a variant on the CPU, whatever it was made for."""
    if variant.layout is not Layout.PACKED:
        return Session(bundle.graph(variant), variant, threads=1)
    return DeviceSessions(variant, lambda _: cpu_attention_session(bundle, variant), [0])


def cpu_attention_session(bundle: Bundle, variant: Variant) -> Session:
    """A session of a packed variant, which takes packed inputs."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / variant.file
        ir.save(with_cpu_attention(ir.load(bundle.graph(variant))), file, external_data="weights")
        return Session(file, variant, threads=available_cores())


def with_cpu_attention(model: ir.Model) -> ir.Model:
    """The same graph with packed attention as a function of CPU operators; the model is changed."""
    nodes = [node for node in model.graph if (node.domain, node.op_type) == (MICROSOFT, OPERATOR)]
    for has_bias in {_has_bias(node) for node in nodes}:
        function = _attention(has_bias=has_bias)
        model.functions[function.identifier()] = function
    for node in nodes:
        node.domain, node.op_type = _DOMAIN, _name(has_bias=_has_bias(node))
    model.graph.opset_imports[_DOMAIN] = 1
    return model


def _has_bias(node: ir.Node) -> bool:
    return len(node.inputs) == len(_INPUTS) and node.inputs[-1] is not None


def _name(*, has_bias: bool) -> str:
    return f"{OPERATOR}{'WithBias' if has_bias else ''}"


def _attention(*, has_bias: bool) -> ir.Function:
    builder = Function(_name(has_bias=has_bias))
    query, key, value, _, offsets, bounds, bias = (builder.argument(name) for name in _INPUTS)
    places, counts = TextBounds.of(builder, bounds).padded(builder, columns_of(builder, offsets))
    context = builder.op(
        "MultiHeadAttention",
        *(builder.op("Gather", each, places) for each in (query, key, value)),
        None,
        builder.op("Cast", counts, to=ir.DataType.INT32),
        bias if has_bias else None,
        domain=MICROSOFT,
        mask_filter_value=MASKED,
        num_heads=ir.RefAttr("num_heads", "num_heads", ir.AttributeType.INT),
    )
    kept = builder.op(
        "Squeeze", builder.op("NonZero", builder.op("Reshape", counts, builder.integers(-1))), builder.integers(0)
    )
    result = builder.op("Gather", builder.op("Flatten", context, axis=2), kept)
    return builder.function(_DOMAIN, result, attributes=["num_heads"])
