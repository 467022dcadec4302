"""Attention layouts: ways to lay out the tokens of several texts in one graph.

Most nodes of an encoder work on each token by itself, so they are the same in every layout. This module holds the
nodes that differ: the inputs that describe the layout, positions, attention, and pooling.
"""

import functools
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from encort.export.graph import standard
from encort.export.graph.builder import MICROSOFT, OPSETS, STANDARD_OPSETS, GraphBuilder
from encort.export.graph.description import AttentionHeads
from encort.runtime.bundle.manifest import Layout

MASKED = float(np.finfo(np.float32).min)
"""Score of a masked token. The operator's default, -10000, can be above a real score."""
SMALLEST_MASK = -30_000.0
"""Number that masks of portable graphs add to scores: far below every score, and still finite in half precision.

The smallest float32 becomes infinite in half precision. OpenVINO in bfloat16 then computes zero times infinity, and its
result is wrong without being NaN.
"""
MOST_COLUMNS = 2**13
"""Length of the longest text that a bias by distance supports, in tokens."""


class AttentionLayout(ABC):
    """Nodes that depend on the layout of the tokens.

    Attributes:
        axes: Axes of the token ids, and first axes of every output with a row per token.
        opsets: Operators that graphs of the layout may have, as the version of each domain.
    """

    axes: ClassVar[tuple[str, ...]] = ("batch", "sequence")
    opsets: ClassVar[Mapping[str, int]] = OPSETS

    def __init__(self, builder: GraphBuilder, ids: ir.Value) -> None:
        """Declare the inputs that describe the layout of the token ids."""
        self._builder, self._ids = builder, ids

    @abstractmethod
    def unpad(self, x: ir.Value) -> ir.Value:
        """Return ids or positions without padding, as the layers compute, from `(*axes)`."""

    @abstractmethod
    def repad(self, hidden: ir.Value) -> ir.Value:
        """Return the layers' hidden states with padding again, as the outputs need them, `(*axes, hidden)`."""

    @abstractmethod
    def positions(self, table: ir.Value) -> ir.Value:
        """Return row `i` of the table for token `i` of each text."""

    @abstractmethod
    def roberta_positions(self, ids: ir.Value, padding_id: int) -> ir.Value:
        """Return positions as RoBERTa counts them, `(*axes)` int64.

        Padding tokens have position 0. The other tokens of a text are counted from 1.
        """

    @abstractmethod
    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: AttentionHeads, bias: ir.Value | None
    ) -> ir.Value:
        """Return the attention's result for each token, over all tokens of its text.

        Args:
            query: Projected queries; keys and values have the same shape.
            key: Projected keys.
            value: Projected values.
            heads: Attention heads.
            bias: Added to the scores, `(1, heads, sequence, sequence)`.
        """

    def add_norm(self, x: ir.Value, residual: ir.Value, weight: ir.Value, bias: ir.Value, epsilon: float) -> ir.Value:
        """Return the layer norm of `x + residual`."""
        # Two operators, because ONNX Runtime's fused one is several times slower on CPUs.
        return self._builder.op(
            "LayerNormalization", self._builder.op("Add", x, residual), weight, bias, axis=-1, epsilon=epsilon
        )

    @property
    @abstractmethod
    def columns(self) -> ir.Value:
        """Numbers 0, 1, 2 ... up to the length of the longest text, `(sequence,)` int64."""

    @property
    def numbers(self) -> ir.Value:
        """Number of each token in its text, from 0, `(sequence,)` or `(batch, sequence)` int64."""
        return self.columns

    @abstractmethod
    def first(self, hidden: ir.Value) -> ir.Value:
        """Return the first token of each text, `(batch, hidden)`, from hidden states `(*axes, hidden)`."""

    @abstractmethod
    def token(self, hidden: ir.Value, indices: ir.Value) -> ir.Value:
        """Return one token of each text, `(batch, hidden)`, by its number in the text, `(batch,)` int64."""

    @abstractmethod
    def padded(self, hidden: ir.Value) -> ir.Value:
        """Return hidden states as `(batch, sequence, hidden)`, from `(*axes, hidden)`."""

    @property
    @abstractmethod
    def mask(self) -> ir.Value | None:
        """Mask of padded hidden states, `(batch, sequence)` float32, 1 on tokens; None: there is no padding."""


class EqualLength(AttentionLayout):
    """Texts of equal length, `(batch, sequence)`, without a mask."""

    def unpad(self, x: ir.Value) -> ir.Value:
        return x

    def repad(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._first_rows(table)

    def roberta_positions(self, ids: ir.Value, padding_id: int) -> ir.Value:
        is_counted = _is_not(self._builder, ids, padding_id)
        return self._builder.op("Mul", _cumulative_sum(self._builder, is_counted, axis=1), is_counted)

    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: AttentionHeads, bias: ir.Value | None
    ) -> ir.Value:
        return _attention(self._builder, (query, key, value), heads, mask=None, bias=bias)

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

    def _first_rows(self, table: ir.Value) -> ir.Value:
        """Return as many rows of the table as a text has tokens."""
        return self._builder.op("Slice", table, self._builder.integers(0), self._sequence(), self._builder.integers(0))

    def _sequence(self) -> ir.Value:
        return self._builder.op("Shape", self._ids, start=1, end=2)


class Padded(EqualLength):
    """Padded texts, `(batch, sequence)`, with a mask, in standard operators that compute the padding too."""

    opsets = STANDARD_OPSETS

    def __init__(self, builder: GraphBuilder, ids: ir.Value, mask: ir.Value | None = None) -> None:
        """Declare the mask as an input, or take the mask of a graph that another exporter has made."""
        super().__init__(builder, ids)
        self._mask = builder.input("attention_mask", ir.DataType.INT64, self.axes) if mask is None else mask

    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: AttentionHeads, bias: ir.Value | None
    ) -> ir.Value:
        biases = [self._mask_bias] if bias is None else [bias, self._mask_bias]
        return standard.attention(self._builder, query, key, value, heads=heads, biases=biases)

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
        rows = builder.op("Sub", _cumulative_sum(builder, flat_mask), builder.integers(1))
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

    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: AttentionHeads, bias: ir.Value | None
    ) -> ir.Value:
        padded = (self.repad(query), self.repad(key), self.repad(value))
        context = _attention(self._builder, padded, heads, mask=self._attention_mask, bias=bias)
        return self._builder.op("Gather", self._builder.op("Flatten", context, axis=2), self._unmasked)


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
        is_counted = _is_not(builder, ids, padding_id)
        indices, is_token = self._padded
        # Each text is summed by itself: the time of CUDA's CumSum grows with the square of the length.
        padded = builder.op(
            "Mul", builder.op("Gather", is_counted, indices), builder.op("Cast", is_token, to=ir.DataType.INT64)
        )
        sums = _cumulative_sum(builder, padded, axis=1)
        # Padding has the index of the text's last token, and also its sum, so it may be scattered too.
        flat_indices, flat_sums = (builder.op("Reshape", grid, builder.integers(-1)) for grid in (indices, sums))
        positions = builder.op("ScatterElements", is_counted, flat_indices, flat_sums, axis=0)
        return builder.op("Mul", positions, is_counted)

    def attend(
        self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: AttentionHeads, bias: ir.Value | None
    ) -> ir.Value:
        inputs = (query, key, value, None, self._token_offset, self._cu_seqlens, bias)
        return self._builder.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads.count)

    def add_norm(self, x: ir.Value, residual: ir.Value, weight: ir.Value, bias: ir.Value, epsilon: float) -> ir.Value:
        # ONNX Runtime fuses Add and LayerNormalization by itself, but only for inputs with three axes.
        return self._builder.op("SkipLayerNormalization", x, residual, weight, bias, domain=MICROSOFT, epsilon=epsilon)

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


ATTENTION_LAYOUTS: dict[Layout, type[AttentionLayout]] = {
    Layout.EQUAL_LENGTH: EqualLength,
    Layout.RAGGED: Ragged,
    Layout.PACKED: Packed,
    Layout.PADDED: Padded,
}
"""Layouts of authored graphs."""
_END = np.iinfo(np.int64).max
"""End of a slice that goes to the last element."""


def columns_of(builder: GraphBuilder, token_offset: ir.Value) -> ir.Value:
    """Return the numbers of the columns of `token_offset`, 0, 1, 2 ..., `(sequence,)` int64."""
    # The sum of ones runs on the GPU. A Shape node would give its result to the CPU.
    first = builder.op("Slice", token_offset, builder.integers(0), builder.integers(1), builder.integers(0))
    flat = builder.op("Reshape", builder.op("Cast", first, to=ir.DataType.INT64), builder.integers(-1))
    ones = builder.op("Add", builder.op("Mul", flat, builder.integers(0)), builder.integers(1))
    return _cumulative_sum(builder, ones, exclusive=True)


def _cumulative_sum(builder: GraphBuilder, x: ir.Value, *, axis: int = 0, exclusive: bool = False) -> ir.Value:
    """Return the sum up to each element; an exclusive sum leaves the element itself out."""
    return builder.op("CumSum", x, builder.weight(f"axis_{axis}", np.array(axis, np.int64)), exclusive=int(exclusive))


def _is_not(builder: GraphBuilder, ids: ir.Value, padding_id: int) -> ir.Value:
    """Return 1 for each id other than the padding token's, and 0 for that one, int64."""
    is_padding = builder.op("Equal", ids, builder.integers(padding_id))
    return builder.op("Cast", builder.op("Not", is_padding), to=ir.DataType.INT64)


def _attention(
    builder: GraphBuilder,
    projections: tuple[ir.Value, ir.Value, ir.Value],
    heads: AttentionHeads,
    *,
    mask: ir.Value | None,
    bias: ir.Value | None,
) -> ir.Value:
    """Return the attention's result, `(batch, sequence, hidden)`, for queries, keys and values of that shape."""
    return builder.op(
        "MultiHeadAttention",
        *projections,
        None,
        mask,
        bias,
        domain=MICROSOFT,
        num_heads=heads.count,
        mask_filter_value=MASKED,
    )
