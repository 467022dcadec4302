"""How the tokens of several texts lie in a graph, which decides their attention and how a text is pooled.

All else looks at single tokens, so it does not care. What differs is here: the inputs, where a token stands in its
text, how the tokens of a text find each other, and how one vector is made of them.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from encort.export.graph import Graph
from encort.runtime.manifest import Layout

MICROSOFT = "com.microsoft"


class Arrangement(ABC):
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

    @property
    @abstractmethod
    def longest(self) -> ir.Value:
        """Tokens of the longest text, `(1,)` int64."""

    @abstractmethod
    def first(self, hidden: ir.Value) -> ir.Value:
        """The first token of each text, `(batch, hidden)`, of what the graph gives."""

    @abstractmethod
    def mean(self, hidden: ir.Value) -> ir.Value:
        """The mean of the tokens of each text, `(batch, hidden)`, of what the graph gives."""


class EqualLength(Arrangement):
    """`(batch, sequence)`, and all of them count."""

    def layered(self, x: ir.Value) -> ir.Value:
        return x

    def given(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._graph.op("Slice", table, self._graph.integers(0), self.longest, self._graph.integers(0))

    def numbers(self, ids: ir.Value, padding_id: int) -> ir.Value:
        counted = _is_other(self._graph, ids, padding_id)
        return self._graph.op("Mul", self._graph.op("CumSum", counted, self._graph.integers(1)), counted)

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        return _attention(self._graph, (query, key, value), heads, mask=None, bias=bias)

    @property
    def longest(self) -> ir.Value:
        return self._graph.op("Shape", self._ids, start=1, end=2)

    def first(self, hidden: ir.Value) -> ir.Value:
        first = self._graph.op("Gather", hidden, self._graph.integers(0), axis=1)
        return self._graph.op("Squeeze", first, self._graph.integers(1))

    def mean(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("ReduceMean", hidden, self._graph.integers(1), keepdims=0)


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
        counted = graph.op("Sub", graph.op("CumSum", flat, graph.integers(0)), graph.integers(1))
        self._rows = graph.op("Reshape", counted, graph.op("Shape", self._mask))

    def layered(self, x: ir.Value) -> ir.Value:
        return self._graph.op("Gather", self._graph.op("Reshape", x, self._graph.integers(-1)), self._kept)

    def given(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("Gather", hidden, self._rows)

    def positions(self, table: ir.Value) -> ir.Value:
        return self._graph.op("Gather", table, self._graph.op("Mod", self._kept, self.longest))

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        padded = (self.given(query), self.given(key), self.given(value))
        context = _attention(self._graph, padded, heads, mask=self._attention_mask, bias=bias)
        return self._graph.op("Gather", self._graph.op("Flatten", context, axis=2), self._kept)


class Packed(Arrangement):
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
        bounds = graph.op("Cast", self._bounds, to=ir.DataType.INT64)
        self._begins = graph.op("Slice", bounds, graph.integers(0), graph.integers(-1))
        self._ends = graph.op("Slice", bounds, graph.integers(1), graph.integers(_ALL))

    def layered(self, x: ir.Value) -> ir.Value:
        return x

    def given(self, hidden: ir.Value) -> ir.Value:
        return hidden

    def positions(self, table: ir.Value) -> ir.Value:
        return self._graph.op("Gather", table, self._positions)

    def numbers(self, ids: ir.Value, padding_id: int) -> ir.Value:
        graph = self._graph
        counted = _is_other(graph, ids, padding_id)
        before = graph.op("CumSum", counted, graph.integers(0), exclusive=1)
        before_text = graph.op("Gather", graph.op("Gather", before, self._begins), self._texts())
        numbers = graph.op("Add", graph.op("Sub", before, before_text), graph.integers(1))
        return graph.op("Mul", numbers, counted)

    def attend(self, query: ir.Value, key: ir.Value, value: ir.Value, *, heads: int, bias: ir.Value | None) -> ir.Value:
        inputs = (query, key, value, None, self._offsets, self._bounds, bias)
        return self._graph.op("PackedMultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=heads)

    @property
    def longest(self) -> ir.Value:
        return self._graph.op("Shape", self._offsets, start=1, end=2)

    def first(self, hidden: ir.Value) -> ir.Value:
        return self._graph.op("Gather", hidden, self._begins)

    def mean(self, hidden: ir.Value) -> ir.Value:
        places, counts = self._padded_places()
        padded = self._graph.op("Gather", hidden, places)
        return _masked_mean(self._graph, padded, self._graph.op("Cast", counts, to=ir.DataType.FLOAT))

    def _texts(self) -> ir.Value:
        """Number of the text of each token, `(tokens,)` int64."""
        graph = self._graph
        none = graph.op("Mul", self._positions, graph.integers(0))
        ones = graph.op("Add", graph.op("Mul", self._begins, graph.integers(0)), graph.integers(1))
        begun = graph.op("ScatterElements", none, self._begins, ones, axis=0)
        return graph.op("Sub", graph.op("CumSum", begun, graph.integers(0)), graph.integers(1))

    def _padded_places(self) -> tuple[ir.Value, ir.Value]:
        """Places of the tokens in `(batch, longest)`, int64, and which of them are, bool; elsewhere the text's last."""
        graph = self._graph
        nothing, one = (graph.weight(f"integer_{number}", np.array(number, np.int64)) for number in (0, 1))
        columns = graph.op("Range", nothing, graph.op("Squeeze", self.longest), one)
        begins, ends = (graph.op("Unsqueeze", each, graph.integers(1)) for each in (self._begins, self._ends))
        places = graph.op("Add", begins, columns)
        return graph.op("Min", places, graph.op("Sub", ends, graph.integers(1))), graph.op("Less", places, ends)


ARRANGEMENTS: dict[Layout, type[Arrangement]] = {
    Layout.EQUAL_LENGTH: EqualLength,
    Layout.RAGGED: Ragged,
    Layout.PACKED: Packed,
}
_ALL = np.iinfo(np.int64).max
"""An end beyond every end."""


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
        # The default of -10000 is not far enough below every score.
        mask_filter_value=float(np.finfo(np.float32).min),
    )


def _masked_mean(graph: Graph, hidden: ir.Value, mask: ir.Value) -> ir.Value:
    counted = graph.op("Unsqueeze", mask, graph.integers(2))
    total = graph.op("ReduceSum", graph.op("Mul", hidden, counted), graph.integers(1), keepdims=0)
    return graph.op("Div", total, graph.op("ReduceSum", counted, graph.integers(1), keepdims=0))
