"""Embeddings, transformer layers, and the encoder that they make."""

from dataclasses import dataclass
from enum import StrEnum

from encort.export.graph.description.attention import Attention
from encort.export.graph.description.linears import Linear, Norm
from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Embeddings:
    """The sum of embedding tables, then a norm, then a projection if the tables are narrower than the layers.

    Attributes:
        name: Prefix of the tables' names in the graph.
        words: `(vocabulary, size)`.
        positions: `(positions, size)`. Without a `padding_id`, row `i` is for the text's token `i`. With a
            `padding_id`, row 0 is for padding tokens and row `i` for the text's `i`th other token, counted from 1.
            None if attention alone knows the positions.
        padding_id: Token id that has position 0; None if every token counts.
        types: `(types, size)`. None if there is only one type; `positions` or `words` then contains its row.
        norm: Norm of the sum; None if there is none.
        projection: From `size` to `hidden`; None if they are equal.
    """

    name: str
    words: FloatArray
    positions: FloatArray | None
    padding_id: int | None
    types: FloatArray | None
    norm: Norm | None
    projection: Linear | None


@dataclass(frozen=True, eq=False, kw_only=True)
class FeedForward:
    """Two linear layers with an activation between them, `output(activation(intermediate(x)))`.

    Attributes:
        intermediate: Layer before the activation.
        gate: Layer whose result is multiplied by the activation's, as in GeGLU and SwiGLU; None if there is none.
        output: Last layer.
        activation: Hugging Face name of the activation.
    """

    intermediate: Linear
    gate: Linear | None
    output: Linear
    activation: str


class NormPlacement(StrEnum):
    """Place of the norms: `norm(x + f(x))` or `x + f(norm(x))`, where `f` is attention or feed-forward."""

    POST = "post"
    PRE = "pre"


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One transformer layer: attention, then feed-forward, each with a residual sum and a norm.

    Attributes:
        attention: Attention.
        attention_norm: Norm of the attention; None if it has none.
        feed_forward: Feed-forward.
        output_norm: Norm of the feed-forward.
        placement: Place of both norms.
    """

    attention: Attention
    attention_norm: Norm | None
    feed_forward: FeedForward
    output_norm: Norm
    placement: NormPlacement

    @property
    def linear_groups(self) -> tuple[tuple[Linear, ...], ...]:
        """Linear layers in the order in which they run; those of one group read the same tensor."""
        attention, inner = self.attention, self.feed_forward
        gate = () if inner.gate is None else (inner.gate,)
        return (
            (attention.query, attention.key, attention.value),
            (attention.output,),
            (inner.intermediate, *gate),
            (inner.output,),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoder:
    """A transformer encoder.

    Attributes:
        embeddings: First part of the encoder.
        layers: Layers in the order in which they run. The same layer may run several times.
        final_norm: Norm after the last layer; None if there is none.
        pooler: Dense layer of the pooler, `tanh(first token @ weight + bias)`; None if the checkpoint has no pooler.
        max_length: Largest number of tokens that have a position.
    """

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    final_norm: Norm | None
    pooler: Linear | None
    max_length: int

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        projection = self.embeddings.projection
        return int(self.embeddings.words.shape[1]) if projection is None else projection.width
