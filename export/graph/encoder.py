"""Write the encoder's graph from its description: embeddings, then layers of attention and feed-forward.

The attention layout writes attention, positions and the norm of a sum. The precision is that of the weights, or that
of the `LinearEmitter`. Measurements with ONNX Runtime on CPUs decided these points: Add and LayerNormalization are
separate nodes, because the fused kernel is several times slower; attention is one MultiHeadAttention; texts of equal
length have no mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from encort.export.graph import standard
from encort.export.graph.builder import MICROSOFT, GraphBuilder
from encort.export.graph.description import AttentionHeads, Embeddings, Encoder, LayerNorm, Linear
from encort.export.graph.layouts import ATTENTION_LAYOUTS, AttentionLayout
from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError


class LinearEmitter(Protocol):
    """Writes linear layers that read the same tensor."""

    def __call__(self, builder: GraphBuilder, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
        """Return the output of each layer for `x`."""


@dataclass(frozen=True)
class Tokens:
    """Inputs of an encoder.

    Attributes:
        ids: Token ids, int64, with the axes of the layout.
        type_ids: Token type ids, int64, with the axes of the layout; None for an encoder without types.
        layout: Layout of the tokens.
    """

    ids: ir.Value
    type_ids: ir.Value | None
    layout: AttentionLayout


def token_inputs(builder: GraphBuilder, encoders: Sequence[Encoder], layout: Layout) -> list[Tokens]:
    """Declare the inputs of each encoder. A second encoder reads the same pairs with their texts swapped."""
    attention_layout = ATTENTION_LAYOUTS[layout]
    tokens: list[Tokens] = []
    for encoder, prefix in zip(encoders, ("", "reversed_"), strict=False):
        ids = builder.input(f"{prefix}input_ids", ir.DataType.INT64, attention_layout.axes)
        types = None
        if encoder.embeddings.types is not None:
            types = builder.input(f"{prefix}token_type_ids", ir.DataType.INT64, attention_layout.axes)
        # Swapping the texts of a pair does not change its length, so both encoders share one layout.
        tokens.append(Tokens(ids, types, tokens[0].layout if tokens else attention_layout(builder, ids)))
    return tokens


def emit_float_linears(builder: GraphBuilder, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
    """Write `x @ weight + bias` for each layer, in the precision of its weights."""
    return [linear(builder, layer, x) for layer in layers]


def last_hidden_state(
    builder: GraphBuilder, encoder: Encoder, tokens: Tokens, linears: LinearEmitter = emit_float_linears
) -> ir.Value:
    """Write the whole encoder and return the hidden states of its last layer, `(*axes, hidden)`."""
    layout, bias = tokens.layout, None
    heads = AttentionHeads(encoder.attention_heads, encoder.hidden // encoder.attention_heads)
    if encoder.distance_bias is not None:
        bias = _attention_bias(builder, encoder, encoder.distance_bias, layout.columns)
    hidden = _embed(builder, encoder.embeddings, tokens)
    for layer in encoder.layers:
        query, key, value = linears(builder, (layer.query, layer.key, layer.value), hidden)
        context = layout.attend(query, key, value, heads=heads, bias=bias)
        (output,) = linears(builder, (layer.attention_output,), context)
        hidden = _add_norm(builder, layer.attention_norm, output, hidden, layout)
        (inner,) = linears(builder, (layer.intermediate,), hidden)
        (output,) = linears(builder, (layer.output,), activate(builder, encoder.activation, inner))
        hidden = _add_norm(builder, layer.output_norm, output, hidden, layout)
    return layout.repad(hidden)


def linear(builder: GraphBuilder, layer: Linear, x: ir.Value) -> ir.Value:
    """Write `x @ weight + bias`."""
    product = builder.op("MatMul", x, builder.weight(f"{layer.name}.weight", layer.weight))
    return builder.op("Add", product, builder.weight(f"{layer.name}.bias", layer.bias))


def activate(builder: GraphBuilder, activation: str, x: ir.Value) -> ir.Value:
    """Write the activation with the given Hugging Face name.

    Raises:
        CheckpointError: ONNX Runtime has no operator for it.
    """
    emit = ACTIVATIONS.get(activation)
    if emit is None:
        raise CheckpointError(f"activation {activation!r} cannot be exported; encort knows: {', '.join(ACTIVATIONS)}")
    return emit(builder, x)


def _embed(builder: GraphBuilder, embeddings: Embeddings, tokens: Tokens) -> ir.Value:
    name, layout = embeddings.name, tokens.layout
    total = builder.op("Gather", builder.weight(f"{name}.words", embeddings.words), layout.unpad(tokens.ids))
    if embeddings.types is not None and tokens.type_ids is not None:
        types = builder.weight(f"{name}.types", embeddings.types)
        # Eager PyTorch adds types before positions. The same order gives the same rounding.
        total = builder.op("Add", total, builder.op("Gather", types, layout.unpad(tokens.type_ids)))
    table = builder.weight(f"{name}.positions", embeddings.positions)
    if embeddings.padding_id is None:
        positions = layout.positions(table)
    else:
        indices = layout.roberta_positions(tokens.ids, embeddings.padding_id)
        positions = builder.op("Gather", table, layout.unpad(indices))
    hidden = _add_norm(builder, embeddings.norm, total, positions, layout)
    return hidden if embeddings.projection is None else linear(builder, embeddings.projection, hidden)


def _attention_bias(builder: GraphBuilder, encoder: Encoder, table: FloatArray, columns: ir.Value) -> ir.Value:
    """Return the bias of the scores for each pair of tokens, `(1, attention_heads, sequence, sequence)`."""
    queries = builder.op("Unsqueeze", columns, builder.integers(1))
    distances = builder.op("Add", builder.op("Sub", columns, queries), builder.integers((len(table) + 1) // 2 - 1))
    weight = builder.weight(f"{encoder.embeddings.name}.distances", np.ascontiguousarray(table.T))
    return builder.op("Unsqueeze", builder.op("Gather", weight, distances, axis=1), builder.integers(0))


def _add_norm(
    builder: GraphBuilder, norm: LayerNorm, x: ir.Value, residual: ir.Value, layout: AttentionLayout
) -> ir.Value:
    weight = builder.weight(f"{norm.name}.weight", norm.weight)
    bias = builder.weight(f"{norm.name}.bias", norm.bias)
    return layout.add_norm(x, residual, weight, bias, norm.epsilon)


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
    "tanh": lambda builder, x: builder.op("Tanh", x),
}
"""Activations by their Hugging Face names."""
