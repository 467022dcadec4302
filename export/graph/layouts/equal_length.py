"""Layout of texts of equal length."""

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import AttentionHeads, Rotary
from encort.export.graph.layouts.base import AttentionLayout
from encort.export.graph.layouts.local import LocalAttention
from encort.export.graph.layouts.nodes import attention, cumulative_sum, is_not, rotate

MOST_COLUMNS = 2**13
"""Length of the longest text that a bias by distance supports, in tokens."""


class EqualLength(AttentionLayout):
    """Texts of equal length, `(batch, sequence)`, without a mask."""

    def __init__(self, builder: GraphBuilder, ids: ir.Value) -> None:
        super().__init__(builder, ids)
        self._windows: dict[int, LocalAttention] = {}

    def unpad(self, x: ir.Value) -> ir.Value:
        return x

    def repad(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._first_rows(table)

    def roberta_positions(self, ids: ir.Value, padding_id: int) -> ir.Value:
        is_counted = is_not(self._builder, ids, padding_id)
        return self._builder.op("Mul", cumulative_sum(self._builder, is_counted, axis=1), is_counted)

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
        if window is None:
            return attention(builder, projections, heads, mask=None, bias=bias)
        local, width = self._local(window), builder.integers(-1, heads.width)

        def attend_in_blocks() -> ir.Value:
            rows = [builder.op("Reshape", x, width) for x in projections]
            return builder.op("Reshape", local.attend(rows, heads), builder.op("Shape", query))

        return builder.choose(
            local.is_short,
            lambda: attention(builder, projections, heads, mask=None, bias=local.short_bias),
            attend_in_blocks,
        )

    def rotate(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        # One number stands for the position of the first token of every text.
        return rotate(self._builder, x, self._builder.integers(0), rotary)

    @property
    def columns(self) -> ir.Value:
        return self._first_rows(self._builder.weight("integers_range", np.arange(MOST_COLUMNS)))

    def first(self, hidden: ir.Value) -> ir.Value:
        first = self._builder.op("Gather", hidden, self._builder.integers(0), axis=1)
        return self._builder.op("Squeeze", first, self._builder.integers(1))

    def token(self, hidden: ir.Value, indices: ir.Value) -> ir.Value:
        indices = self._builder.op("Unsqueeze", indices, self._builder.integers(1))
        return self._builder.op("GatherND", hidden, indices, batch_dims=1)

    def padded(self, hidden: ir.Value) -> ir.Value:
        return hidden

    @property
    def mask(self) -> ir.Value | None:
        return None

    def _local(self, window: int) -> LocalAttention:
        """Return the attention of layers with a window, which they share."""
        if window not in self._windows:
            self._windows[window] = LocalAttention.of(self._builder, self._cells, self._sequence(), window)
        return self._windows[window]

    @property
    def _cells(self) -> ir.Value:
        """Index of each token in the grid of the texts, `(tokens,)` int64."""
        zero, one = (self._builder.weight(f"index_{number}", np.array(number)) for number in (0, 1))
        return self._builder.op("Range", zero, self._builder.op("Size", self._ids), one)

    def _first_rows(self, table: ir.Value) -> ir.Value:
        """Return as many rows of the table as a text has tokens."""
        return self._builder.op("Slice", table, self._builder.integers(0), self._sequence(), self._builder.integers(0))

    def _sequence(self) -> ir.Value:
        return self._builder.op("Shape", self._ids, start=1, end=2)
