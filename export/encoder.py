"""The encoder's graph, authored from its description: embeddings, then layers of attention and feed-forward.

Choices were measured on ONNX Runtime's CPU provider: separate Add and LayerNormalization (the fused kernel is
several times slower), attention as one MultiHeadAttention, no mask where no text is padded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.description import Embeddings, Encoder, Layer, LayerNorm, Linear
from encort.export.graph import Graph
from encort.runtime.errors import CheckpointError
from encort.runtime.manifest import Layout

MICROSOFT = "com.microsoft"
AXES = ("batch", "sequence")


@dataclass(frozen=True)
class Tokens:
    """What goes into the graph.

    Attributes:
        ids: `(batch, sequence)` int64.
        type_ids: `(batch, sequence)` int64.
        mask: `(batch, sequence)` int64, 1 on tokens that count; None where all do.
    """

    ids: ir.Value
    type_ids: ir.Value
    mask: ir.Value | None


def token_inputs(graph: Graph, layout: Layout) -> Tokens:
    """Declare the graph's inputs."""
    return Tokens(
        ids=graph.input("input_ids", ir.DataType.INT64, AXES),
        type_ids=graph.input("token_type_ids", ir.DataType.INT64, AXES),
        mask=graph.input("attention_mask", ir.DataType.INT64, AXES) if layout is Layout.PADDED else None,
    )


def last_hidden_state(graph: Graph, encoder: Encoder, tokens: Tokens) -> ir.Value:
    """Hidden states of the last layer, `(batch, sequence, hidden)` float32."""
    # MultiHeadAttention takes its mask as int32.
    mask = None if tokens.mask is None else graph.op("Cast", tokens.mask, to=ir.DataType.INT32)
    hidden = _embed(graph, encoder.embeddings, tokens)
    for layer in encoder.layers:
        hidden = _attend(graph, layer, encoder.attention_heads, hidden, mask)
        hidden = _feed_forward(graph, layer, encoder.activation, hidden)
    return hidden


def linear(graph: Graph, layer: Linear, x: ir.Value) -> ir.Value:
    """`x @ weight + bias`."""
    product = graph.op("MatMul", x, graph.weight(f"{layer.name}.weight", layer.weight))
    return graph.op("Add", product, graph.weight(f"{layer.name}.bias", layer.bias))


def _embed(graph: Graph, embeddings: Embeddings, tokens: Tokens) -> ir.Value:
    words = graph.op("Gather", graph.weight("embeddings.words", embeddings.words), tokens.ids)
    types = graph.op("Gather", graph.weight("embeddings.types", embeddings.types), tokens.type_ids)
    sequence = graph.op("Shape", tokens.ids, start=1, end=2)
    positions = graph.weight("embeddings.positions", embeddings.positions)
    first = graph.op("Slice", positions, graph.integers(0), sequence, graph.integers(0))
    # The order of eager PyTorch, so that the rounding is the same.
    return _norm(graph, embeddings.norm, graph.op("Add", graph.op("Add", words, types), first))


def _attend(graph: Graph, layer: Layer, heads: int, hidden: ir.Value, mask: ir.Value | None) -> ir.Value:
    context = graph.op(
        "MultiHeadAttention",
        linear(graph, layer.query, hidden),
        linear(graph, layer.key, hidden),
        linear(graph, layer.value, hidden),
        None,
        *([] if mask is None else [mask]),
        domain=MICROSOFT,
        num_heads=heads,
        # The default of -10000 is not far enough below every score.
        mask_filter_value=float(np.finfo(np.float32).min),
    )
    output = linear(graph, layer.attention_output, context)
    return _norm(graph, layer.attention_norm, graph.op("Add", output, hidden))


def _feed_forward(graph: Graph, layer: Layer, activation: str, hidden: ir.Value) -> ir.Value:
    inner = _activate(graph, activation, linear(graph, layer.intermediate, hidden))
    output = linear(graph, layer.output, inner)
    return _norm(graph, layer.output_norm, graph.op("Add", output, hidden))


def _norm(graph: Graph, norm: LayerNorm, x: ir.Value) -> ir.Value:
    weight = graph.weight(f"{norm.name}.weight", norm.weight)
    bias = graph.weight(f"{norm.name}.bias", norm.bias)
    return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.epsilon)


def _activate(graph: Graph, activation: str, x: ir.Value) -> ir.Value:
    author = ACTIVATIONS.get(activation)
    if author is None:
        raise CheckpointError(f"activation {activation!r} cannot be exported; encort knows: {', '.join(ACTIVATIONS)}")
    return author(graph, x)


ACTIVATIONS: dict[str, Callable[[Graph, ir.Value], ir.Value]] = {
    "gelu": lambda graph, x: graph.op("Gelu", x, domain=MICROSOFT),
    "relu": lambda graph, x: graph.op("Relu", x),
}
"""By the Hugging Face name."""
