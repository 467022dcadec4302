"""Write linear layers, norms and activations."""

from collections.abc import Callable

import onnx_ir as ir

from encort.export.graph import standard
from encort.export.graph.builder import MICROSOFT, GraphBuilder
from encort.export.graph.description import LayerNorm, Linear, Norm
from encort.runtime.common.errors import CheckpointError


def linear(builder: GraphBuilder, layer: Linear, x: ir.Value) -> ir.Value:
    """Write `x @ weight + bias`."""
    product = builder.op("MatMul", x, builder.weight(f"{layer.name}.weight", layer.weight))
    return (
        product if layer.bias is None else builder.op("Add", product, builder.weight(f"{layer.name}.bias", layer.bias))
    )


def normalize(builder: GraphBuilder, norm: Norm, x: ir.Value) -> ir.Value:
    """Write a norm over the last axis."""
    weight = builder.weight(f"{norm.name}.weight", norm.weight)
    if not isinstance(norm, LayerNorm):
        return standard.rms_norm(builder, x, weight, norm.epsilon)
    # ONNX Runtime crashes if the last input is there without a name.
    bias = () if norm.bias is None else (norm_bias(builder, norm),)
    return builder.op("LayerNormalization", x, weight, *bias, axis=-1, epsilon=norm.epsilon)


def norm_bias(builder: GraphBuilder, norm: LayerNorm) -> ir.Value | None:
    """Return the bias of a norm; None if it has none."""
    return None if norm.bias is None else builder.weight(f"{norm.name}.bias", norm.bias)


def activate(builder: GraphBuilder, activation: str, x: ir.Value) -> ir.Value:
    """Write the activation with the given Hugging Face name.

    Raises:
        CheckpointError: ONNX Runtime has no operator for it.
    """
    emit = ACTIVATIONS.get(activation)
    if emit is None:
        raise CheckpointError(f"activation {activation!r} cannot be exported; encort knows: {', '.join(ACTIVATIONS)}")
    return emit(builder, x)


def _gelu(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    return standard.gelu(builder, x) if builder.is_standard else builder.op("Gelu", x, domain=MICROSOFT)


def _tanh_gelu(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    return standard.tanh_gelu(builder, x) if builder.is_standard else builder.op("FastGelu", x, domain=MICROSOFT)


ACTIVATIONS: dict[str, Callable[[GraphBuilder, ir.Value], ir.Value]] = {
    "gelu": _gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": lambda builder, x: builder.op("Relu", x),
    "silu": standard.silu,
    "tanh": lambda builder, x: builder.op("Tanh", x),
}
"""Activations by their Hugging Face names."""
