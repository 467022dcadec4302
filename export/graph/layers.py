"""Write transformer layers from their description: norms, attention, feed-forward.

The attention layout writes the scores, positions and the norm of a sum. The precision is that of the weights, or that
of the `LinearEmitter`. Measurements with ONNX Runtime on CPUs decided these points: Add and LayerNormalization are
separate nodes, because the fused kernel is several times slower; attention is one MultiHeadAttention; texts of equal
length have no mask.

A new position scheme is a class in `description.attention`. `LayerWriter` writes its nodes: those that change queries
and keys before attention, or a bias of the scores.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import (
    Attention,
    AttentionHeads,
    Disentangled,
    DistanceBias,
    DistanceEmbeddings,
    Encoder,
    FeedForward,
    Layer,
    Linear,
    Norm,
    NormPlacement,
    Rotary,
)
from encort.export.graph.disentangled import DisentangledWriter, distance_rows
from encort.export.graph.layouts import AttentionLayout
from encort.export.graph.operators import activate, linear, normalize


class LinearEmitter(Protocol):
    """Writes linear layers that read the same tensor."""

    def __call__(self, builder: GraphBuilder, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
        """Return the output of each layer for `x`."""


def emit_float_linears(builder: GraphBuilder, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
    """Write `x @ weight + bias` for each layer, in the precision of its weights."""
    return [linear(builder, layer, x) for layer in layers]


class LayerWriter(Protocol):
    """Writes the layers of one encoder."""

    def layer(self, layer: Layer, hidden: ir.Value) -> ir.Value:
        """Write a layer and return its result, which has the shape of `hidden`."""


OpenLayerWriter = Callable[[GraphBuilder, Encoder, AttentionLayout], LayerWriter]
"""Returns the writer of an encoder's layers for a layout."""


@dataclass(frozen=True)
class OperatorLayerWriter:
    """Writes layers in the operators of ONNX and ONNX Runtime.

    Attributes:
        builder: Builder of the graph.
        layout: Layout of the tokens.
        linears: Writer of linear layers.
        biases: Bias of the scores, `(1, heads, sequence, sequence)`, of each position scheme that is a bias.
        rows: Row of each distance's embedding, `(batch, heads, sequence, sequence)`, for disentangled attention.
    """

    builder: GraphBuilder
    layout: AttentionLayout
    linears: LinearEmitter
    biases: Mapping[DistanceBias, ir.Value]
    rows: Mapping[DistanceEmbeddings, ir.Value]

    def layer(self, layer: Layer, hidden: ir.Value) -> ir.Value:
        """Write attention and feed-forward, with their norms and residual sums."""
        hidden = self._residual(layer.placement, layer.attention_norm, hidden, partial(self._attend, layer.attention))
        return self._residual(layer.placement, layer.output_norm, hidden, partial(self._feed, layer.feed_forward))

    def _residual(
        self, placement: NormPlacement, norm: Norm | None, x: ir.Value, inner: Callable[[ir.Value], ir.Value]
    ) -> ir.Value:
        if norm is None:
            return self.builder.op("Add", inner(x), x)
        if placement is NormPlacement.POST:
            return self.layout.add_norm(inner(x), x, norm)
        return self.builder.op("Add", inner(normalize(self.builder, norm, x)), x)

    def _attend(self, attention: Attention, x: ir.Value) -> ir.Value:
        query, key, value = self.linears(self.builder, (attention.query, attention.key, attention.value), x)
        heads, positions, bias = attention.heads, attention.positions, None
        if isinstance(positions, Rotary):
            query, key = (self.layout.rotate(projection, positions) for projection in (query, key))
        elif isinstance(positions, DistanceBias):
            bias = self.biases[positions]
        elif isinstance(positions, Disentangled):
            project, rows = partial(self.linears, self.builder), self.rows[positions.distances]
            writer = DisentangledWriter(self.builder, self.layout, project, attention, positions, rows)
            query = writer.scaled_query(query)
            bias = writer.bias(query, key)
        if heads.groups < heads.count:
            key, value = (_repeat_heads(self.builder, projection, heads) for projection in (key, value))
        context = self.layout.attend(query, key, value, heads=heads, bias=bias, window=attention.window)
        (output,) = self.linears(self.builder, (attention.output,), context)
        return output

    def _feed(self, feed_forward: FeedForward, x: ir.Value) -> ir.Value:
        gate = () if feed_forward.gate is None else (feed_forward.gate,)
        inner, *gates = self.linears(self.builder, (feed_forward.intermediate, *gate), x)
        inner = activate(self.builder, feed_forward.activation, inner)
        for factor in gates:
            inner = self.builder.op("Mul", inner, factor)
        (output,) = self.linears(self.builder, (feed_forward.output,), inner)
        return output


def operator_layers(
    builder: GraphBuilder, encoder: Encoder, layout: AttentionLayout, *, linears: LinearEmitter = emit_float_linears
) -> OperatorLayerWriter:
    """Return the writer of layers in the operators of ONNX and ONNX Runtime."""
    return OperatorLayerWriter(
        builder, layout, linears, distance_biases(builder, encoder, layout), distance_rows(builder, encoder, layout)
    )


def distance_biases(
    builder: GraphBuilder, encoder: Encoder, layout: AttentionLayout
) -> Mapping[DistanceBias, ir.Value]:
    """Write the bias of the scores for each position scheme that is one, `(1, heads, sequence, sequence)`."""
    schemes = dict.fromkeys(layer.attention.positions for layer in encoder.layers)
    return {
        scheme: _distance_bias(builder, scheme, layout.columns)
        for scheme in schemes
        if isinstance(scheme, DistanceBias)
    }


def _distance_bias(builder: GraphBuilder, bias: DistanceBias, columns: ir.Value) -> ir.Value:
    """Return the bias of the scores for each pair of tokens, `(1, heads, sequence, sequence)`."""
    queries = builder.op("Unsqueeze", columns, builder.integers(1))
    distances = builder.op("Add", builder.op("Sub", columns, queries), builder.integers((len(bias.table) + 1) // 2 - 1))
    weight = builder.weight(bias.name, np.ascontiguousarray(bias.table.T))
    return builder.op("Unsqueeze", builder.op("Gather", weight, distances, axis=1), builder.integers(0))


def _repeat_heads(builder: GraphBuilder, x: ir.Value, heads: AttentionHeads) -> ir.Value:
    """Return keys or values with a copy for each head, `(..., heads * size)`, from `(..., groups * size)`."""
    index = np.repeat(np.arange(heads.groups), heads.count // heads.groups)
    numbers = builder.weight(f"groups_{heads.groups}_of_{heads.count}", index)
    leading = builder.op("Shape", x, start=0, end=-1)
    split = builder.op("Concat", leading, builder.integers(heads.groups, heads.size), axis=0)
    repeated = builder.op("Gather", builder.op("Reshape", x, split), numbers, axis=-2)
    return builder.op("Reshape", repeated, builder.op("Concat", leading, builder.integers(heads.width), axis=0))
