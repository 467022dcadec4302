"""The encoder's graph, authored from its description: embeddings, then layers of attention and feed-forward.

Attention, and a sum with its norm, are those of the layout. Choices for CPUs were measured on ONNX Runtime: separate
Add and LayerNormalization (the fused kernel is several times slower), attention as one MultiHeadAttention, no mask
where no text is padded. The precision is that of the weights, or of the `LinearEmitter` a graph is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import Graph
from encort.export.graph.description import Embeddings, Encoder, LayerNorm, Linear
from encort.export.graph.layouts import ATTENTION_LAYOUTS, MICROSOFT, AttentionLayout
from encort.runtime.bundle.manifest import Layout
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError


class LinearEmitter(Protocol):
    def __call__(self, graph: Graph, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
        """The product of `x` with each of the layers, which all read it."""


@dataclass(frozen=True)
class Tokens:
    """What goes into an encoder.

    Attributes:
        ids: int64, with the arrangement's axes.
        type_ids: The same; None for an encoder without types.
        arrangement: How they lie.
    """

    ids: ir.Value
    type_ids: ir.Value | None
    arrangement: AttentionLayout


def token_inputs(graph: Graph, encoders: Sequence[Encoder], layout: Layout) -> list[Tokens]:
    """Declare the inputs of each encoder; the second one's are of the same pairs, their texts exchanged."""
    arrange = ATTENTION_LAYOUTS[layout]
    found: list[Tokens] = []
    for encoder, prefix in zip(encoders, ("", "reversed_"), strict=False):
        ids = graph.input(f"{prefix}input_ids", ir.DataType.INT64, arrange.axes)
        has_types = encoder.embeddings.types is not None
        types = graph.input(f"{prefix}token_type_ids", ir.DataType.INT64, arrange.axes) if has_types else None
        # A pair has as many tokens in either order.
        found.append(Tokens(ids, types, found[0].arrangement if found else arrange(graph, ids)))
    return found


def emit_float_linears(graph: Graph, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
    """`x @ weight + bias` of each layer, in the precision of its weights."""
    return [linear(graph, layer, x) for layer in layers]


def last_hidden_state(
    graph: Graph, encoder: Encoder, tokens: Tokens, linears: LinearEmitter = emit_float_linears
) -> ir.Value:
    """Hidden states of the last layer, `(*axes, hidden)`, with the axes of the arrangement."""
    lie = tokens.arrangement
    bias = (
        None if encoder.distance_bias is None else _attention_bias(graph, encoder, encoder.distance_bias, lie.columns)
    )
    hidden = _embed(graph, encoder.embeddings, tokens)
    for layer in encoder.layers:
        query, key, value = linears(graph, (layer.query, layer.key, layer.value), hidden)
        context = lie.attend(query, key, value, heads=encoder.attention_heads, bias=bias)
        (output,) = linears(graph, (layer.attention_output,), context)
        hidden = _add_norm(graph, layer.attention_norm, output, hidden, lie)
        (inner,) = linears(graph, (layer.intermediate,), hidden)
        (output,) = linears(graph, (layer.output,), activate(graph, encoder.activation, inner))
        hidden = _add_norm(graph, layer.output_norm, output, hidden, lie)
    return lie.given(hidden)


def linear(graph: Graph, layer: Linear, x: ir.Value) -> ir.Value:
    """`x @ weight + bias`."""
    product = graph.op("MatMul", x, graph.weight(f"{layer.name}.weight", layer.weight))
    return graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))


def activate(graph: Graph, activation: str, x: ir.Value) -> ir.Value:
    """The activation of that Hugging Face name.

    Raises:
        CheckpointError: There is no operator for it.
    """
    author = ACTIVATIONS.get(activation)
    if author is None:
        raise CheckpointError(f"activation {activation!r} cannot be exported; encort knows: {', '.join(ACTIVATIONS)}")
    return author(graph, x)


def _embed(graph: Graph, embeddings: Embeddings, tokens: Tokens) -> ir.Value:
    name, lie = embeddings.name, tokens.arrangement
    total = graph.op("Gather", graph.weight(f"{name}.words", embeddings.words), lie.layered(tokens.ids))
    if embeddings.types is not None and tokens.type_ids is not None:
        types = graph.weight(f"{name}.types", embeddings.types)
        # Types before positions, as eager PyTorch adds them, so that the rounding is the same.
        total = graph.op("Add", total, graph.op("Gather", types, lie.layered(tokens.type_ids)))
    table = graph.weight(f"{name}.positions", embeddings.positions)
    if embeddings.padding_id is None:
        positions = lie.positions(table)
    else:
        positions = graph.op("Gather", table, lie.layered(lie.numbers(tokens.ids, embeddings.padding_id)))
    hidden = _add_norm(graph, embeddings.norm, total, positions, lie)
    return hidden if embeddings.projection is None else linear(graph, embeddings.projection, hidden)


def _attention_bias(graph: Graph, encoder: Encoder, table: FloatArray, columns: ir.Value) -> ir.Value:
    """What is added to the scores of each pair of tokens, `(1, attention_heads, sequence, sequence)`."""
    queries = graph.op("Unsqueeze", columns, graph.integers(1))
    distances = graph.op("Add", graph.op("Sub", columns, queries), graph.integers((len(table) + 1) // 2 - 1))
    weight = graph.weight(f"{encoder.embeddings.name}.distances", np.ascontiguousarray(table.T))
    return graph.op("Unsqueeze", graph.op("Gather", weight, distances, axis=1), graph.integers(0))


def _add_norm(graph: Graph, norm: LayerNorm, x: ir.Value, residual: ir.Value, lie: AttentionLayout) -> ir.Value:
    weight = graph.weight(f"{norm.name}.weight", norm.weight)
    bias = graph.weight(f"{norm.name}.bias", norm.bias)
    return lie.add_norm(x, residual, weight, bias, norm.epsilon)


def _gelu(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.op("Gelu", x, domain=MICROSOFT)


def _tanh_gelu(graph: Graph, x: ir.Value) -> ir.Value:
    return graph.op("FastGelu", x, domain=MICROSOFT)


ACTIVATIONS: dict[str, Callable[[Graph, ir.Value], ir.Value]] = {
    "gelu": _gelu,
    "gelu_new": _tanh_gelu,
    "gelu_fast": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
    "relu": lambda graph, x: graph.op("Relu", x),
    "tanh": lambda graph, x: graph.op("Tanh", x),
}
"""By the Hugging Face name."""
