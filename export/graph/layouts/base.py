"""Interface of attention layouts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import onnx_ir as ir

from encort.export.graph.builder import OPSETS, GraphBuilder
from encort.export.graph.description import AttentionHeads, Norm, Rotary
from encort.export.graph.operators import normalize


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
        self,
        query: ir.Value,
        key: ir.Value,
        value: ir.Value,
        *,
        heads: AttentionHeads,
        bias: ir.Value | None,
        window: int | None,
    ) -> ir.Value:
        """Return the attention's result for each token, over the tokens of its text.

        Args:
            query: Projected queries; keys and values have the same shape, so every head has keys of its own.
            key: Projected keys.
            value: Projected values.
            heads: Attention heads.
            bias: Added to the scores, `(1, heads, sequence, sequence)` or with a row for each text, `(batch, ...)`.
            window: Largest distance of two tokens that see each other; None if all tokens of a text do. Layers with a
                window have no bias.
        """

    @abstractmethod
    def rotate(self, x: ir.Value, rotary: Rotary) -> ir.Value:
        """Return queries or keys of any number of heads, each rotated by its position in its text."""

    def add_norm(self, x: ir.Value, residual: ir.Value, norm: Norm) -> ir.Value:
        """Return the norm of `x + residual`."""
        # Two operators, because ONNX Runtime's fused one is several times slower on CPUs.
        return normalize(self._builder, norm, self._builder.op("Add", x, residual))

    @property
    @abstractmethod
    def columns(self) -> ir.Value:
        """Numbers 0, 1, 2 ... up to the length of the longest text, `(sequence,)` int64."""

    @property
    def batch(self) -> ir.Value:
        """Number of texts, `(1,)` int64."""
        return self._builder.op("Shape", self.first(self._ids))

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
