"""Local attention in blocks: time and memory grow with the window, not with the square of the length.

The tokens of all texts are one row, cut into blocks as long as the window. The queries of a block see its keys, those
of the block before it and those of the block after it. A bias hides the keys that are too far, or of another text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import AttentionHeads
from encort.export.graph.layouts.nodes import SMALLEST_MASK, attention


@dataclass(frozen=True)
class LocalAttention:
    """Attention with a window over a row of tokens, in blocks of `size` queries with `3 * size` keys.

    Attributes:
        builder: Builder of the graph.
        is_short: Whether no text is longer than the keys of a block, `(1,)` bool. Blocks then save nothing.
        short_bias: Bias that hides far keys of short texts, `(1, 1, sequence, sequence)` float32.
        queries: Token of each query, `(blocks, size)` int64. The last block is filled up with the last token.
        keys: Token of each key, `(blocks, 3 * size)` int64.
        bias: Bias that hides keys in blocks, `(blocks, 1, size, 3 * size)` float32.
        count: Number of tokens, `(1,)` int64.
    """

    builder: GraphBuilder
    is_short: ir.Value
    short_bias: ir.Value
    queries: ir.Value
    keys: ir.Value
    bias: ir.Value
    count: ir.Value

    @classmethod
    def of(cls, builder: GraphBuilder, cells: ir.Value, sequence: ir.Value, window: int) -> "LocalAttention":
        """Cut tokens into blocks.

        Args:
            builder: Builder of the graph.
            cells: Index of each token in the grid of the texts `(batch, sequence)`, ascending, `(tokens,)` int64.
            sequence: Length of the grid's rows, `(1,)` int64.
            window: Largest distance of two tokens that see each other.
        """
        size = max(window, 1)
        rows, keys = _key_rows(builder, cells, size)
        places = builder.op("Gather", _places(builder, cells, sequence, window), keys)
        # Keys before the first token and after the last one are as far from it as other texts.
        places = builder.op("Where", builder.op("Equal", keys, rows), places, builder.integers(-1 - window))
        return cls(
            builder=builder,
            is_short=builder.op("LessOrEqual", sequence, builder.integers(3 * size)),
            short_bias=_short_bias(builder, sequence, size, window),
            queries=_own(builder, keys, size),
            keys=keys,
            bias=_bias(builder, _own(builder, places, size), places, window),
            count=builder.op("Shape", cells),
        )

    def attend(self, projections: Sequence[ir.Value], heads: AttentionHeads) -> ir.Value:
        """Return the attention's result, `(tokens, hidden)`, for queries, keys and values of that shape."""
        builder, (query, key, value) = self.builder, projections
        blocks = (
            builder.op("Gather", query, self.queries),
            builder.op("Gather", key, self.keys),
            builder.op("Gather", value, self.keys),
        )
        context = attention(builder, blocks, heads, mask=None, bias=self.bias)
        return builder.op("Slice", builder.op("Flatten", context, axis=2), builder.integers(0), self.count)


def _key_rows(builder: GraphBuilder, cells: ir.Value, size: int) -> tuple[ir.Value, ir.Value]:
    """Return the row of each key, `(blocks, 3 * size)` int64, and the nearest row that has a token."""
    count = builder.op("Size", cells)
    zero, one, step = (builder.weight(f"index_{number}", np.array(number)) for number in (0, 1, size))
    starts = builder.op("Unsqueeze", builder.op("Range", zero, count, step), builder.integers(1))
    rows = builder.op("Add", starts, builder.weight(f"offsets_{size}", np.arange(-size, 2 * size)))
    return rows, builder.op("Clip", rows, zero, builder.op("Sub", count, one))


def _own(builder: GraphBuilder, of_keys: ir.Value, size: int) -> ir.Value:
    """Return the part of `(blocks, 3 * size)` that belongs to the block itself, `(blocks, size)`."""
    # Gather, because ONNX Runtime warns of a Slice whose input and output both go into a branch.
    return builder.op("Gather", of_keys, builder.weight(f"own_{size}", np.arange(size, 2 * size)), axis=1)


def _places(builder: GraphBuilder, cells: ir.Value, sequence: ir.Value, window: int) -> ir.Value:
    """Return numbers that differ by the distance of two tokens, and by more than the window between two texts."""
    texts = builder.op("Div", cells, sequence)
    return builder.op("Add", cells, builder.op("Mul", texts, builder.integers(window + 1)))


def _bias(builder: GraphBuilder, queries: ir.Value, keys: ir.Value, window: int) -> ir.Value:
    """Return the bias of the scores for places of queries, `(blocks, size)`, and of keys, `(blocks, 3 * size)`."""
    queries = builder.op("Unsqueeze", queries, builder.integers(1, 3))
    distances = builder.op("Abs", builder.op("Sub", queries, builder.op("Unsqueeze", keys, builder.integers(1, 2))))
    scores = {"masked_score": SMALLEST_MASK, "seen_score": 0.0}
    masked, seen = (builder.weight(name, np.array(score, np.float32)) for name, score in scores.items())
    return builder.op("Where", builder.op("Greater", distances, builder.integers(window)), masked, seen)


def _short_bias(builder: GraphBuilder, sequence: ir.Value, size: int, window: int) -> ir.Value:
    columns = np.arange(3 * size)
    is_far = np.abs(columns[:, np.newaxis] - columns) > window
    scores = np.where(is_far, np.float32(SMALLEST_MASK), np.float32(0))[np.newaxis, np.newaxis]
    ends = builder.op("Concat", sequence, sequence, axis=0)
    table = builder.weight(f"window_{window}", scores)
    return builder.op("Slice", table, builder.integers(0, 0), ends, builder.integers(2, 3))
