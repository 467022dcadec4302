"""Layout of padded texts in standard operators."""

import functools

import numpy as np
import onnx_ir as ir

from encort.export.graph import standard
from encort.export.graph.builder import OPSETS, STANDARD_OPSETS, GraphBuilder
from encort.export.graph.description import AttentionHeads, Rotary
from encort.export.graph.layouts.equal_length import EqualLength
from encort.export.graph.layouts.nodes import SMALLEST_MASK, rotary_tables, window_bias


class Padded(EqualLength):
    """Padded texts, `(batch, sequence)`, with a mask, in standard operators that compute the padding too."""

    opsets = STANDARD_OPSETS

    def __init__(self, builder: GraphBuilder, ids: ir.Value, mask: ir.Value | None = None) -> None:
        """Declare the mask as an input, or take the mask of a graph that another exporter has made."""
        super().__init__(builder, ids)
        self._mask = builder.input("attention_mask", ir.DataType.INT64, self.axes) if mask is None else mask

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
            bias = window_bias(self._builder, self.columns, window)
        biases = [self._mask_bias] if bias is None else [bias, self._mask_bias]
        return standard.attention(self._builder, query, key, value, heads=heads, biases=biases)

    def rotate(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        tables = rotary_tables(self._builder, rotary)
        cosines, sines = (self.positions(table) for table in tables)
        return standard.rotate(self._builder, x, cosines, sines, half=rotary.cosines.shape[1])

    @functools.cached_property
    def mask(self) -> ir.Value:
        return self._builder.op("Cast", self._mask, to=ir.DataType.FLOAT)

    @property
    def numbers(self) -> ir.Value:
        # Padding may be in front of a text. A row without tokens begins at column 0.
        starts = self._builder.op("ArgMax", self.mask, axis=1, keepdims=1)
        return self._builder.op("Sub", self.columns, starts)

    @functools.cached_property
    def _mask_bias(self) -> ir.Value:
        """Bias of the scores that hides padding, `(batch, 1, 1, sequence)` float32."""
        padding = self._builder.op(
            "Cast", self._builder.op("Equal", self._mask, self._builder.integers(0)), to=ir.DataType.FLOAT
        )
        bias = self._builder.op(
            "Mul", padding, self._builder.weight("masked_score", np.array(SMALLEST_MASK, np.float32))
        )
        return self._builder.op("Unsqueeze", bias, self._builder.integers(1, 2))


class Expanded(Padded):
    """Padded texts with a mask, whose masked tokens are results too; see `Layout.EXPANDED`."""

    opsets = OPSETS
