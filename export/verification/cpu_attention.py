"""CPU attention: run packed graphs on a machine without a GPU.

Packed graphs have one operator that only CUDA implements. Here it becomes an ONNX function of CPU operators. So a
graph for CUDA is verified where it is exported: its weights, its inputs and all other nodes stay the same. The
results of the GPU's own kernels are checked when the graph is loaded on a GPU.
"""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from encort.export.graph.builder import MICROSOFT, FunctionBuilder
from encort.export.graph.layouts.nodes import MASKED
from encort.export.graph.layouts.packed import TextBounds, columns_of
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.files import GraphFiles
from encort.runtime.bundle.manifest import Layout, Variant
from encort.runtime.cuda.workers import GpuWorkers
from encort.runtime.engine.cores import available_cores
from encort.runtime.engine.session import Runner, Session

OPERATOR = "PackedMultiHeadAttention"
OpenSession = Callable[[Bundle, Variant], Runner]
"""Opens a variant of a bundle."""
_DOMAIN = "encort"
_INPUTS = ("query", "key", "value", "bias", "token_offset", "cu_seqlens", "scores_bias")


def open_to_verify(bundle: Bundle, variant: Variant) -> Runner:
    """Open a variant on the CPU, for whichever device it was made."""
    if variant.layout is not Layout.PACKED:
        return Session(bundle.graph(variant), variant, threads=1)
    return GpuWorkers(variant, lambda _: cpu_attention_session(bundle, variant), [0])


def cpu_attention_session(bundle: Bundle, variant: Variant) -> Session:
    """Open a packed variant on the CPU. The session takes packed inputs."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / variant.file
        ir.save(with_cpu_attention(ir.load(bundle.graph(variant).path)), file, external_data="weights")
        return Session(GraphFiles(file, {}), variant, threads=available_cores())


def with_cpu_attention(model: ir.Model) -> ir.Model:
    """Replace packed attention by a function of CPU operators, in place, and return the model."""
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
    """Return packed attention as a function: pad the texts, run MultiHeadAttention, remove the padding."""
    builder = FunctionBuilder(_name(has_bias=has_bias))
    query, key, value, _, token_offset, cu_seqlens, bias = (builder.argument(name) for name in _INPUTS)
    bounds = TextBounds.of(builder, cu_seqlens)
    indices, is_token = bounds.padded(builder, columns_of(builder, token_offset))
    context = builder.op(
        "MultiHeadAttention",
        *(builder.op("Gather", projection, indices) for projection in (query, key, value)),
        None,
        builder.op("Cast", is_token, to=ir.DataType.INT32),
        bias if has_bias else None,
        domain=MICROSOFT,
        mask_filter_value=MASKED,
        num_heads=ir.RefAttr("num_heads", "num_heads", ir.AttributeType.INT),
    )
    token_indices = builder.op(
        "Squeeze", builder.op("NonZero", builder.op("Reshape", is_token, builder.integers(-1))), builder.integers(0)
    )
    result = builder.op("Gather", builder.op("Flatten", context, axis=2), token_indices)
    return builder.function(_DOMAIN, result, attributes=["num_heads"])
