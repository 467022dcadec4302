"""Write disentangled attention: scores of tokens with distances, as a bias of the scores of tokens with tokens.

Every layout takes such a bias, which has a row of its own for each text. The distances are projected by the layer's own
writer of linear layers, as if they were a text: an int8 layer projects them in int8, as in the simulation. They are
constant, so that ONNX Runtime projects them once, when it loads the graph.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import (
    Attention,
    AttentionHeads,
    Disentangled,
    DistanceEmbeddings,
    Encoder,
    Linear,
)
from encort.export.graph.layouts import AttentionLayout
from encort.export.graph.operators import linear

Projector = Callable[[Sequence[Linear], ir.Value], list[ir.Value]]
"""Writes linear layers that read the same tensor."""


def distance_rows(
    builder: GraphBuilder, encoder: Encoder, layout: AttentionLayout
) -> Mapping[DistanceEmbeddings, ir.Value]:
    """Write the row of the embeddings for each query and key, `(batch, heads, sequence, sequence)` int64."""
    attentions = {
        layer.attention.positions.distances: layer.attention.heads.count
        for layer in encoder.layers
        if isinstance(layer.attention.positions, Disentangled)
    }
    return {distances: _rows(builder, distances, layout, heads) for distances, heads in attentions.items()}


def _rows(builder: GraphBuilder, distances: DistanceEmbeddings, layout: AttentionLayout, heads: int) -> ir.Value:
    keys = layout.columns
    queries = builder.op("Unsqueeze", keys, builder.integers(1))
    middle = builder.integers((len(distances.rows) + 1) // 2 - 1)
    indices = builder.op("Add", builder.op("Sub", queries, keys), middle)
    rows = builder.weight(f"{distances.name}.rows", np.array(distances.rows, np.int64))
    shape = builder.op("Concat", layout.batch, builder.integers(heads, 1, 1), axis=0)
    return builder.op("Expand", builder.op("Gather", rows, indices), shape)


@dataclass(frozen=True)
class DisentangledWriter:
    """Writes the disentangled attention of one layer.

    Attributes:
        builder: Builder of the graph.
        layout: Layout of the tokens.
        project: Writer of the layer's linear layers.
        attention: Attention of the layer.
        scheme: Its position scheme.
        rows: Row of the embeddings for each query and key, `(batch, heads, sequence, sequence)` int64.
    """

    builder: GraphBuilder
    layout: AttentionLayout
    project: Projector
    attention: Attention
    scheme: Disentangled
    rows: ir.Value

    def scaled_query(self, query: ir.Value) -> ir.Value:
        """Return queries divided by the root of the number of sums; attention divides by the root of their size."""
        return self._divided(query, self.scheme.sums)

    def bias(self, query: ir.Value, key: ir.Value) -> ir.Value:
        """Return the bias of the scores, `(batch, heads, sequence, sequence)`, for queries of `scaled_query`."""
        builder, heads = self.builder, self.attention.heads
        distance_keys, distance_queries = self._projected_distances()
        # In the grid (batch, sequence), because each pair of tokens has a score.
        queries, keys = (self.layout.padded(self.layout.repad(x)) for x in (query, key))
        scores = []
        if distance_keys is not None:
            by_row = _scores(builder, queries, self._divided(distance_keys, heads.size), heads)
            scores.append(builder.op("GatherElements", by_row, self.rows, axis=3))
        if distance_queries is not None:
            by_row = _scores(builder, self._divided(distance_queries, heads.size * self.scheme.sums), keys, heads)
            scores.append(builder.op("GatherElements", by_row, self.rows, axis=2))
        return scores[0] if len(scores) == 1 else builder.op("Add", *scores)

    def _projected_distances(self) -> tuple[ir.Value | None, ir.Value | None]:
        """Return the distances as keys and as queries, `(1, rows, heads * size)`; None for those that are not read."""
        scheme, attention = self.scheme, self.attention
        distances = self.builder.weight(scheme.distances.name, scheme.distances.embeddings[np.newaxis])
        if scheme.shares_projections:
            query, key, _ = self.project((attention.query, attention.key, attention.value), distances)
            return (None if scheme.key is None else key), (None if scheme.query is None else query)
        keys, queries = (
            None if layer is None else linear(self.builder, layer, distances) for layer in (scheme.key, scheme.query)
        )
        return keys, queries

    def _divided(self, x: ir.Value, square: int) -> ir.Value:
        """Return `x / sqrt(square)`."""
        distances = self.scheme.distances
        factor = np.array(1 / math.sqrt(square), distances.embeddings.dtype)
        return self.builder.op("Mul", x, self.builder.weight(f"{distances.name}.inverse_root_{square}", factor))


def _scores(builder: GraphBuilder, queries: ir.Value, keys: ir.Value, heads: AttentionHeads) -> ir.Value:
    """Return the product of each query with each key, for `(batch, rows, heads * size)`."""
    split = builder.integers(0, 0, heads.count, heads.size)
    queries, keys = (builder.op("Reshape", x, split) for x in (queries, keys))
    queries = builder.op("Transpose", queries, perm=[0, 2, 1, 3])
    return builder.op("MatMul", queries, builder.op("Transpose", keys, perm=[0, 2, 3, 1]))
