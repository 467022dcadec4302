"""The encoder's graph, authored from its description: embeddings, then layers of attention and feed-forward.

Choices were measured on ONNX Runtime's CPU provider: separate Add and LayerNormalization (the fused kernel is
several times slower), attention as one MultiHeadAttention, no mask where no text is padded. Where texts are, only
attention sees the padding: all else is computed for the tokens that count, one after the other. The precision is that
of the `Linears` a graph is given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from encort.export.description import Embeddings, Encoder, FloatArray, Layer, LayerNorm, Linear
from encort.export.graph import Graph
from encort.runtime.errors import CheckpointError
from encort.runtime.manifest import Layout

MICROSOFT = "com.microsoft"
AXES = ("batch", "sequence")


class Linears(Protocol):
    def __call__(self, graph: Graph, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
        """The product of `x` with each of the layers, which all read it."""


@dataclass(frozen=True)
class Tokens:
    """What goes into the encoder.

    Attributes:
        ids: `(batch, sequence)` int64.
        type_ids: `(batch, sequence)` int64; None for an encoder without types.
        mask: `(batch, sequence)` int64, 1 on tokens that count; None where all do.
    """

    ids: ir.Value
    type_ids: ir.Value | None
    mask: ir.Value | None


def token_inputs(graph: Graph, encoders: Sequence[Encoder], layout: Layout) -> list[Tokens]:
    """Declare the inputs of each encoder; the second one's are of the same pairs, their texts exchanged."""
    mask = graph.input("attention_mask", ir.DataType.INT64, AXES) if layout is not Layout.EQUAL_LENGTH else None
    tokens = []
    for encoder, prefix in zip(encoders, ("", "reversed_"), strict=False):
        ids = graph.input(f"{prefix}input_ids", ir.DataType.INT64, AXES)
        has_types = encoder.embeddings.types is not None
        types = graph.input(f"{prefix}token_type_ids", ir.DataType.INT64, AXES) if has_types else None
        tokens.append(Tokens(ids, types, mask))
    return tokens


@dataclass(frozen=True)
class Packing:
    """Tokens one after the other, without those that the mask takes out.

    Attributes:
        kept: `(tokens,)` int64, their places in the flattened `(batch, sequence)`.
        rows: `(batch, sequence)` int64, the row of the token at each place; at a masked place that of another.
    """

    kept: ir.Value
    rows: ir.Value

    @classmethod
    def of(cls, graph: Graph, mask: ir.Value) -> "Packing":
        flat = graph.op("Reshape", mask, graph.integers(-1))
        kept = graph.op("Squeeze", graph.op("NonZero", flat), graph.integers(0))
        counted = graph.op("Sub", graph.op("CumSum", flat, graph.integers(0)), graph.integers(1))
        return cls(kept, graph.op("Reshape", counted, graph.op("Shape", mask)))

    def pack(self, graph: Graph, x: ir.Value, *sizes: int) -> ir.Value:
        """`(batch, sequence, *sizes)` to `(tokens, *sizes)`."""
        return graph.op("Gather", graph.op("Reshape", x, graph.integers(-1, *sizes)), self.kept)

    def unpack(self, graph: Graph, x: ir.Value) -> ir.Value:
        """`(tokens, hidden)` to `(batch, sequence, hidden)`."""
        return graph.op("Gather", x, self.rows)


def full_precision(graph: Graph, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
    """`x @ weight + bias` of each layer in float32."""
    return [linear(graph, layer, x) for layer in layers]


def last_hidden_state(graph: Graph, encoder: Encoder, tokens: Tokens, linears: Linears = full_precision) -> ir.Value:
    """Hidden states of the last layer, `(batch, sequence, hidden)` float32."""
    # MultiHeadAttention takes its mask as int32.
    mask = None if tokens.mask is None else graph.op("Cast", tokens.mask, to=ir.DataType.INT32)
    packing = None if tokens.mask is None else Packing.of(graph, tokens.mask)
    sequence = graph.op("Shape", tokens.ids, start=1, end=2)
    bias = None if encoder.distance_bias is None else _attention_bias(graph, encoder, encoder.distance_bias, sequence)
    hidden = _embed(graph, encoder.embeddings, tokens, sequence, packing)
    for layer in encoder.layers:
        context = _attend(graph, layer, encoder.attention_heads, hidden, (mask, bias), linears, packing)
        (output,) = linears(graph, (layer.attention_output,), context)
        hidden = _norm(graph, layer.attention_norm, graph.op("Add", output, hidden))
        hidden = _feed_forward(graph, layer, encoder.activation, hidden, linears)
    return hidden if packing is None else packing.unpack(graph, hidden)


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


def _embed(
    graph: Graph, embeddings: Embeddings, tokens: Tokens, sequence: ir.Value, packing: Packing | None
) -> ir.Value:
    name = embeddings.name
    ids = tokens.ids if packing is None else packing.pack(graph, tokens.ids)
    total = graph.op("Gather", graph.weight(f"{name}.words", embeddings.words), ids)
    if embeddings.types is not None and tokens.type_ids is not None:
        type_ids = tokens.type_ids if packing is None else packing.pack(graph, tokens.type_ids)
        # Types before positions, as eager PyTorch adds them, so that the rounding is the same.
        total = graph.op("Add", total, graph.op("Gather", graph.weight(f"{name}.types", embeddings.types), type_ids))
    positions = _positions(graph, embeddings, tokens, sequence, packing)
    hidden = _norm(graph, embeddings.norm, graph.op("Add", total, positions))
    return hidden if embeddings.projection is None else linear(graph, embeddings.projection, hidden)


def _positions(
    graph: Graph, embeddings: Embeddings, tokens: Tokens, sequence: ir.Value, packing: Packing | None
) -> ir.Value:
    table = graph.weight(f"{embeddings.name}.positions", embeddings.positions)
    if embeddings.padding_id is None:
        if packing is None:
            return graph.op("Slice", table, graph.integers(0), sequence, graph.integers(0))
        return graph.op("Gather", table, graph.op("Mod", packing.kept, sequence))
    is_padding = graph.op("Equal", tokens.ids, graph.integers(embeddings.padding_id))
    counted = graph.op("Cast", graph.op("Not", is_padding), to=ir.DataType.INT64)
    numbers = graph.op("Mul", graph.op("CumSum", counted, graph.integers(1)), counted)
    return graph.op("Gather", table, numbers if packing is None else packing.pack(graph, numbers))


def _attention_bias(graph: Graph, encoder: Encoder, table: FloatArray, sequence: ir.Value) -> ir.Value:
    """What is added to the scores of each pair of tokens, `(1, attention_heads, sequence, sequence)`."""
    longest = (len(table) + 1) // 2
    rows = graph.weight("integers_range", np.arange(longest, dtype=np.int64))
    keys = graph.op("Slice", rows, graph.integers(0), sequence, graph.integers(0))
    queries = graph.op("Unsqueeze", keys, graph.integers(1))
    distances = graph.op("Add", graph.op("Sub", keys, queries), graph.integers(longest - 1))
    weight = graph.weight(f"{encoder.embeddings.name}.distances", np.ascontiguousarray(table.T))
    return graph.op("Unsqueeze", graph.op("Gather", weight, distances, axis=1), graph.integers(0))


def _attend(
    graph: Graph,
    layer: Layer,
    heads: int,
    hidden: ir.Value,
    mask_and_bias: tuple[ir.Value | None, ir.Value | None],
    linears: Linears,
    packing: Packing | None,
) -> ir.Value:
    """What each token takes from the others of its text, before the output's product."""
    projected = linears(graph, (layer.query, layer.key, layer.value), hidden)
    context = graph.op(
        "MultiHeadAttention",
        *(projected if packing is None else [packing.unpack(graph, each) for each in projected]),
        None,
        *mask_and_bias,
        domain=MICROSOFT,
        num_heads=heads,
        # The default of -10000 is not far enough below every score.
        mask_filter_value=float(np.finfo(np.float32).min),
    )
    return context if packing is None else packing.pack(graph, context, layer.value.bias.size)


def _feed_forward(graph: Graph, layer: Layer, activation: str, hidden: ir.Value, linears: Linears) -> ir.Value:
    (inner,) = linears(graph, (layer.intermediate,), hidden)
    (output,) = linears(graph, (layer.output,), activate(graph, activation, inner))
    return _norm(graph, layer.output_norm, graph.op("Add", output, hidden))


def _norm(graph: Graph, norm: LayerNorm, x: ir.Value) -> ir.Value:
    weight = graph.weight(f"{norm.name}.weight", norm.weight)
    bias = graph.weight(f"{norm.name}.bias", norm.bias)
    return graph.op("LayerNormalization", x, weight, bias, axis=-1, epsilon=norm.epsilon)


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
