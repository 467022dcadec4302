"""How the tokens of several texts lie in a graph, which decides their attention and how a text is pooled.

All else looks at single tokens, so it does not care. What differs is here: the inputs, where a token stands in its
text, how the tokens of a text find each other, and how one vector is made of them.
"""

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import Graph
from encort.runtime.bundle.manifest import Layout

MICROSOFT = "com.microsoft"
MASKED = float(np.finfo(np.float32).min)
"""Score of a masked token; the default of -10000 is not far enough below every score."""
MOST_COLUMNS = 2**13
"""Tokens of the longest text that a bias by distance could be for."""


class AttentionLayout(ABC):
    """Tokens in one layout.

    Attributes:
        axes: Of token ids as inputs, and of what a graph gives for every token.
    """

    axes: ClassVar[tuple[str, ...]] = ("batch", "sequence")

    def __init__(self, graph: Graph, ids: ir.Value) -> None:
        """Declare the inputs that say how the token ids lie."""
        self._graph, self._ids = graph, ids

    @abstractmethod
    def layered(self, x: ir.Value) -> ir.Value:
        """Ids or numbers of all places, as the layers compute: without those that do not count."""

    @abstractmethod
    def given(self, hidden: ir.Value) -> ir.Value:
        """Hidden states of the layers, as the graph gives them."""

    @abstractmethod
    def positions(self, table: ir.Value) -> ir.Value:
        """Row `i` of the table for token `i` of each text."""

    @abstractmethod
    def numbers(self, ids: ir.Value, padding_id: int) -> ir.Value:
        """The number of each id among those of its text that are not the padding token, from 1; 0 for that one."""

    @abstractmethod
    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        """What each token takes from all tokens of its text.

        Args:
            bias: `(1, heads, sequence, sequence)`, added to the scores.
        """

    def add_norm(self, x: ir.Value, residual: ir.Value, weight: ir.Value, bias: ir.Value, epsilon: float) -> ir.Value:
        """Layer norm of a sum; on CPUs two operators, since their fused one is several times slower."""
        return self._graph.op(
            "LayerNormalization", self._graph.op("Add", x, residual), weight, bias, axis=-1, epsilon=epsilon
        )

    @property
    @abstractmethod
    def columns(self) -> ir.Value:
        """0, 1, 2 ... for the places of the longest text, `(sequence,)` int64."""

    @abstractmethod
    def first(self, hidden: ir.Value) -> ir.Value:
        """The first token of each text, `(batch, hidden)`, of what the graph gives."""

    @abstractmethod
    def mean(self, hidden: ir.Value) -> ir.Value:
        """The mean of the tokens of each text, `(batch, hidden)`, of what the graph gives."""


class EqualLength(AttentionLayout):
    """`(batch, sequence)`, and all of them count."""

    def layered(self, x: ir.Value) -> ir.Value:
        return x

    def given(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._first_rows(table)

    def numbers(self, ids: ir.Value, padding_id: int) -> ir.Value:
        counted = _is_other(self._graph, ids, padding_id)
        return self._graph.op("Mul", _cumulated(self._graph, counted, axis=1), counted)

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        return _attention(self._graph, (query, key, value), heads, mask=None, bias=bias)

    @property
    def columns(self) -> ir.Value:
        return self._first_rows(self._graph.weight("integers_range", np.arange(MOST_COLUMNS)))

    def first(self, hidden: ir.Value) -> ir.Value:
        first = self._graph.op("Gather", hidden, self._graph.integers(0), axis=1)
        return self._graph.op("Squeeze", first, self._graph.integers(1))

    def mean(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("ReduceMean", hidden, self._graph.integers(1), keepdims=0)

    def _first_rows(self, table: ir.Value) -> ir.Value:
        """As many as the texts have tokens."""
        return self._graph.op("Slice", table, self._graph.integers(0), self._sequence(), self._graph.integers(0))

    def _sequence(self) -> ir.Value:
        return self._graph.op("Shape", self._ids, start=1, end=2)


class Padded(EqualLength):
    """`(batch, sequence)` with a mask, in a graph that others have made."""

    def __init__(self, graph: Graph, ids: ir.Value, mask: ir.Value) -> None:
        super().__init__(graph, ids)
        self._mask = mask

    def mean(self, hidden: ir.Value) -> ir.Value:
        return _masked_mean(self._graph, hidden, self._graph.op("Cast", self._mask, to=ir.DataType.FLOAT))


class Ragged(Padded):
    """`(batch, sequence)` with a mask; inside, tokens lie one after the other, and only attention sees the padding."""

    def __init__(self, graph: Graph, ids: ir.Value) -> None:
        super().__init__(graph, ids, graph.input("attention_mask", ir.DataType.INT64, self.axes))
        # MultiHeadAttention takes its mask as int32.
        self._attention_mask = graph.op("Cast", self._mask, to=ir.DataType.INT32)
        flat = graph.op("Reshape", self._mask, graph.integers(-1))
        self._kept = graph.op("Squeeze", graph.op("NonZero", flat), graph.integers(0))
        # The row of the token at each place; at a masked place that of another.
        counted = graph.op("Sub", _cumulated(graph, flat), graph.integers(1))
        self._rows = graph.op("Reshape", counted, graph.op("Shape", self._mask))

    def layered(self, x: ir.Value) -> ir.Value:
        return self._graph.op("Gather", self._graph.op("Reshape", x, self._graph.integers(-1)), self._kept)

    def given(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("Gather", hidden, self._rows)

    def positions(self, table: ir.Value) -> ir.Value:
        return self._graph.op("Gather", table, self._graph.op("Mod", self._kept, self._sequence()))

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        padded = (self.given(query), self.given(key), self.given(value))
        context = _attention(self._graph, padded, heads, mask=self._attention_mask, bias=bias)
        return self._graph.op("Gather", self._graph.op("Flatten", context, axis=2), self._kept)


@dataclass(frozen=True)
class TextBounds:
    """Where the texts lie among packed tokens: `(batch,)` int64 of the first token, and of that after the last."""

    begins: ir.Value
    ends: ir.Value

    @classmethod
    def of(cls, graph: Graph, bounds: ir.Value) -> "TextBounds":
        """From `cu_seqlens`."""
        wide = graph.op("Cast", bounds, to=ir.DataType.INT64)
        return cls(
            graph.op("Slice", wide, graph.integers(0), graph.integers(-1)),
            graph.op("Slice", wide, graph.integers(1), graph.integers(_ALL)),
        )

    def padded(self, graph: Graph, columns: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Places of the tokens in `(batch, sequence)`, int64, and which of them are, bool; else the text's last."""
        begins, ends = (graph.op("Unsqueeze", each, graph.integers(1)) for each in (self.begins, self.ends))
        places = graph.op("Add", begins, columns)
        return graph.op("Min", places, graph.op("Sub", ends, graph.integers(1))), graph.op("Less", places, ends)


class Packed(AttentionLayout):
    """`(tokens,)`, one text after the other, for kernels that find the texts by where they begin.

    `position_ids` `(tokens,)` int64 is the number of each token in its text, from 0; `cu_seqlens` `(batch + 1,)` int32
    where the texts begin, and at last the number of tokens; `token_offset` `(batch, sequence)` int32 holds the places
    that the tokens would have in `(batch, sequence)`, and then those of the padding.
    """

    axes = ("tokens",)

    def __init__(self, graph: Graph, ids: ir.Value) -> None:
        super().__init__(graph, ids)
        self._positions = graph.input("position_ids", ir.DataType.INT64, self.axes)
        self._offsets = graph.input("token_offset", ir.DataType.INT32, ("batch", "sequence"))
        self._bounds = graph.input("cu_seqlens", ir.DataType.INT32, ("bounds",))
        self._texts = TextBounds.of(graph, self._bounds)

    def layered(self, x: ir.Value) -> ir.Value:
        return x

    def given(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._graph.op("Gather", table, self._positions)

    def numbers(self, ids: ir.Value, padding_id: int) -> ir.Value:
        graph = self._graph
        counted = _is_other(graph, ids, padding_id)
        places, counts = self._padded
        # Of each text by itself: CUDA's CumSum takes time with the square of what it sums up.
        padded = graph.op("Mul", graph.op("Gather", counted, places), graph.op("Cast", counts, to=ir.DataType.INT64))
        flat = (graph.op("Reshape", each, graph.integers(-1)) for each in (places, _cumulated(graph, padded, axis=1)))
        # What stands beyond the end of a text has the place, and the number, of its last token.
        numbers = graph.op("ScatterElements", counted, *flat, axis=0)
        return graph.op("Mul", numbers, counted)

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        inputs = (query, key, value, None, self._offsets, self._bounds, bias)
        return self._graph.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads)

    def add_norm(self, x: ir.Value, residual: ir.Value, weight: ir.Value, bias: ir.Value, epsilon: float) -> ir.Value:
        # Its fusion by ONNX Runtime asks for three axes.
        return self._graph.op("SkipLayerNormalization", x, residual, weight, bias, domain=MICROSOFT, epsilon=epsilon)

    @property
    def columns(self) -> ir.Value:
        return columns_of(self._graph, self._offsets)

    def first(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("Gather", hidden, self._texts.begins)

    def mean(self, hidden: ir.Value) -> ir.Value:
        places, counts = self._padded
        padded = self._graph.op("Gather", hidden, places)
        return _masked_mean(self._graph, padded, self._graph.op("Cast", counts, to=ir.DataType.FLOAT))

    @functools.cached_property
    def _padded(self) -> tuple[ir.Value, ir.Value]:
        return self._texts.padded(self._graph, self.columns)


ATTENTION_LAYOUTS: dict[Layout, type[AttentionLayout]] = {
    Layout.EQUAL_LENGTH: EqualLength,
    Layout.RAGGED: Ragged,
    Layout.PACKED: Packed,
}
_ALL = np.iinfo(np.int64).max
"""An end beyond every end."""


def columns_of(graph: Graph, offsets: ir.Value) -> ir.Value:
    """0, 1, 2 ... for the columns of `token_offset`: counted on the device, where a shape would be the CPU's."""
    first = graph.op("Slice", offsets, graph.integers(0), graph.integers(1), graph.integers(0))
    flat = graph.op("Reshape", graph.op("Cast", first, to=ir.DataType.INT64), graph.integers(-1))
    ones = graph.op("Add", graph.op("Mul", flat, graph.integers(0)), graph.integers(1))
    return _cumulated(graph, ones, exclusive=True)


def _cumulated(graph: Graph, x: ir.Value, *, axis: int = 0, exclusive: bool = False) -> ir.Value:
    """Sums up to each place; without what stands there, if exclusive."""
    return graph.op("CumSum", x, graph.weight(f"axis_{axis}", np.array(axis, np.int64)), exclusive=int(exclusive))


def _is_other(graph: Graph, ids: ir.Value, padding_id: int) -> ir.Value:
    """1 where a token is not the padding token, int64."""
    is_padding = graph.op("Equal", ids, graph.integers(padding_id))
    return graph.op("Cast", graph.op("Not", is_padding), to=ir.DataType.INT64)


def _attention(
    graph: Graph, projected: tuple[ir.Value, ...], heads: int, *, mask: ir.Value | None, bias: ir.Value | None
) -> ir.Value:
    """What each token takes from the others of its text, all `(batch, sequence, size)`."""
    return graph.op(
        "MultiHeadAttention",
        *projected,
        None,
        mask,
        bias,
        domain=MICROSOFT,
        num_heads=heads,
        mask_filter_value=MASKED,
    )


def _masked_mean(graph: Graph, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    counted = graph.op("Unsqueeze", mask, graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, counted), graph.integers(1), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", counted, graph.integers(1), keepdims=0))
