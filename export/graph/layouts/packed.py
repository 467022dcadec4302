"""Layout of packed texts, for CUDA."""

import functools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import MICROSOFT, GraphBuilder
from encort.export.graph.description import AttentionHeads, LayerNorm, Norm, Rotary
from encort.export.graph.layouts.base import AttentionLayout
from encort.export.graph.layouts.nodes import cumulative_sum, is_not, rotate_row, window_bias
from encort.export.graph.operators import norm_bias

_END = np.iinfo(np.int64).max
"""End of a slice that goes to the last element."""


@dataclass(frozen=True)
class TextBounds:
    """Bounds of the texts among packed tokens.

    Attributes:
        starts: Index of each text's first token, `(batch,)` int64.
        ends: Index after each text's last token, `(batch,)` int64.
    """

    starts: ir.Value
    ends: ir.Value

    @classmethod
    def of(cls, builder: GraphBuilder, cu_seqlens: ir.Value) -> "TextBounds":
        """Split `cu_seqlens`, `(batch + 1,)` int32, into starts and ends."""
        bounds = builder.op("Cast", cu_seqlens, to=ir.DataType.INT64)
        return cls(
            builder.op("Slice", bounds, builder.integers(0), builder.integers(-1)),
            builder.op("Slice", bounds, builder.integers(1), builder.integers(_END)),
        )

    def padded(self, builder: GraphBuilder, columns: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Return the grid that pads the texts to `(batch, sequence)`.

        Returns:
            The index of each element's token, int64, and whether it is a token, bool. Padding has the index of the
            text's last token.
        """
        starts, ends = (builder.op("Unsqueeze", bound, builder.integers(1)) for bound in (self.starts, self.ends))
        indices = builder.op("Add", starts, columns)
        limited = builder.op("Min", indices, builder.op("Sub", ends, builder.integers(1)))
        return limited, builder.op("Less", indices, ends)


class Packed(AttentionLayout):
    """Packed texts, `(tokens,)`, one after the other, for kernels that find each text by its start.

    The inputs that describe the layout:
    - `position_ids`, `(tokens,)` int64: number of each token in its text, from 0.
    - `cu_seqlens`, `(batch + 1,)` int32: index of each text's first token, then the number of all tokens.
    - `token_offset`, `(batch, sequence)` int32: index of each token in the padded form `(batch, sequence)`, then the
      indices of the padding.
    """

    axes = ("tokens",)

    def __init__(self, builder: GraphBuilder, ids: ir.Value) -> None:
        super().__init__(builder, ids)
        self._position_ids = builder.input("position_ids", ir.DataType.INT64, self.axes)
        self._token_offset = builder.input("token_offset", ir.DataType.INT32, ("batch", "sequence"))
        self._cu_seqlens = builder.input("cu_seqlens", ir.DataType.INT32, ("bounds",))
        self._bounds = TextBounds.of(builder, self._cu_seqlens)

    def unpad(self, x: ir.Value) -> ir.Value:
        return x

    def repad(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._builder.op("Gather", table, self._position_ids)

    def roberta_positions(self, ids: ir.Value, padding_id: int) -> ir.Value:
        builder = self._builder
        is_counted = is_not(builder, ids, padding_id)
        indices, is_token = self._padded
        # Each text is summed by itself: the time of CUDA's CumSum grows with the square of the length.
        padded = builder.op(
            "Mul", builder.op("Gather", is_counted, indices), builder.op("Cast", is_token, to=ir.DataType.INT64)
        )
        sums = cumulative_sum(builder, padded, axis=1)
        # Padding has the index of the text's last token, and also its sum, so it may be scattered too.
        flat_indices, flat_sums = (builder.op("Reshape", grid, builder.integers(-1)) for grid in (indices, sums))
        positions = builder.op("ScatterElements", is_counted, flat_indices, flat_sums, axis=0)
        return builder.op("Mul", positions, is_counted)

    def attend(
        self,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        *,
        heads: AttentionHeads,
        bias: ir.Value | None,
        window: int | None,
    ) -> ir.Value:
        if window is not None:
            bias = self._builder.op("CastLike", window_bias(self._builder, self.columns, window), query)
        inputs = (query, key, value, None, self._token_offset, self._cu_seqlens, bias)
        return self._builder.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads.count)

    def rotate(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        return rotate_row(self._builder, x, self._position_ids, rotary)

    def add_norm(self, x: ir.Value, residual: ir.Value, norm: Norm) -> ir.Value:
        if not isinstance(norm, LayerNorm):
            return super().add_norm(x, residual, norm)
        builder = self._builder
        weight, bias = builder.weight(f"{norm.name}.weight", norm.weight), norm_bias(builder, norm)
        # ONNX Runtime fuses Add and LayerNormalization by itself, but only for inputs with three axes.
        inputs = (x, residual, weight, bias)
        return builder.op("SkipLayerNormalization", *inputs, domain=MICROSOFT, epsilon=norm.epsilon)

    @property
    def columns(self) -> ir.Value:
        return columns_of(self._builder, self._token_offset)

    def first(self, hidden: ir.Value) -> ir.Value:
        return self._builder.op("Gather", hidden, self._bounds.starts)

    def token(self, hidden: ir.Value, indices: ir.Value) -> ir.Value:
        return self._builder.op("Gather", hidden, self._builder.op("Add", self._bounds.starts, indices))

    def padded(self, hidden: ir.Value) -> ir.Value:
        return self._builder.op("Gather", hidden, self._padded[0])

    @functools.cached_property
    def mask(self) -> ir.Value:
        return self._builder.op("Cast", self._padded[1], to=ir.DataType.FLOAT)

    @functools.cached_property
    def _padded(self) -> tuple[ir.Value, ir.Value]:
        return self._bounds.padded(self._builder, self.columns)


def columns_of(builder: GraphBuilder, token_offset: ir.Value) -> ir.Value:
    """Return the numbers of the columns of `token_offset`, 0, 1, 2 ..., `(sequence,)` int64."""
    # The sum of ones runs on the GPU. A Shape node would give its result to the CPU.
    first = builder.op("Slice", token_offset, builder.integers(0), builder.integers(1), builder.integers(0))
    flat = builder.op("Reshape", builder.op("Cast", first, to=ir.DataType.INT64), builder.integers(-1))
    ones = builder.op("Add", builder.op("Mul", flat, builder.integers(0)), builder.integers(1))
    return cumulative_sum(builder, ones, exclusive=True)
