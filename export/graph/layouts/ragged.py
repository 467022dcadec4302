"""Layout of padded texts of any lengths, whose padding is left out of the layers."""

from collections.abc import Sequence

import onnx_ir as ir

from encort.export.graph.builder import OPSETS, GraphBuilder
from encort.export.graph.description import AttentionHeads, Rotary
from encort.export.graph.layouts.nodes import attention, cumulative_sum, rotate_row
from encort.export.graph.layouts.padded import Padded


class Ragged(Padded):
    """Padded texts, `(batch, sequence)`, with a mask; inside the graph only attention computes the padding.

    The layers compute the unmasked tokens of all texts in one row, `(tokens, hidden)`.
    """

    opsets = OPSETS

    def __init__(self, builder: GraphBuilder, ids: ir.Value) -> None:
        super().__init__(builder, ids)
        # MultiHeadAttention takes its mask as int32.
        self._attention_mask = builder.op("Cast", self._mask, to=ir.DataType.INT32)
        flat_mask = builder.op("Reshape", self._mask, builder.integers(-1))
        self._unmasked = builder.op("Squeeze", builder.op("NonZero", flat_mask), builder.integers(0))
        # For each element of the mask, the row of its token; masked elements get the row of another token.
        rows = builder.op("Sub", cumulative_sum(builder, flat_mask), builder.integers(1))
        self._rows = builder.op("Reshape", rows, builder.op("Shape", self._mask))

    @property
    def numbers(self) -> ir.Value:
        return self.columns  # encort pads the ends of texts alone

    def unpad(self, x: ir.Value) -> ir.Value:
        return self._builder.op("Gather", self._builder.op("Reshape", x, self._builder.integers(-1)), self._unmasked)

    def repad(self, hidden: ir.Value) -> ir.Value:
        return self._builder.op("Gather", hidden, self._rows)

    def positions(self, table: ir.Value) -> ir.Value:
        return self._builder.op("Gather", table, self._builder.op("Mod", self._unmasked, self._sequence()))

    def rotate(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        positions = self._builder.op("Mod", self._unmasked, self._sequence())
        return rotate_row(self._builder, x, positions, rotary)

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
        builder, projections = self._builder, (query, key, value)
        if window is None:  # with the mask even if nothing is masked: without it, the sums have another rounding
            return self._attend_masked(projections, heads, bias)
        local = self._local(window)
        return builder.choose(
            local.is_short,
            lambda: self._attend_masked(projections, heads, local.short_bias),
            lambda: local.attend(projections, heads),
        )

    def _attend_masked(self, projections: Sequence[ir.Value], heads: AttentionHeads, bias: ir.Value | None) -> ir.Value:
        padded = [self.repad(x) for x in projections]
        context = attention(self._builder, padded, heads, mask=self._attention_mask, bias=bias)
        return self._builder.op("Gather", self._builder.op("Flatten", context, axis=2), self._unmasked)

    @property
    def _cells(self) -> ir.Value:
        return self._unmasked
