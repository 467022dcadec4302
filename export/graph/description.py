"""Neutral description of a model: its weights are named by their role, not by the names of a library.

The weight of every linear layer is `(in, out)`, so that a graph computes `x @ weight + bias`.
"""

from dataclasses import dataclass
from enum import StrEnum

from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear:
    """A linear layer, `x @ weight + bias`.

    Attributes:
        name: Prefix of its weights' names in the graph.
        weight: `(in, out)`.
        bias: `(out,)`.
    """

    name: str
    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm:
    """Normalization over the last axis.

    Attributes:
        name: Prefix of its weights' names in the graph.
        weight: `(hidden,)`.
        bias: `(hidden,)`.
        epsilon: Added to the variance.
    """

    name: str
    weight: FloatArray
    bias: FloatArray
    epsilon: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Embeddings:
    """The sum of embedding tables, then a layer norm, then a projection if the tables are narrower than the layers.

    Attributes:
        name: Prefix of the tables' names in the graph.
        words: `(vocabulary, size)`.
        positions: `(positions, size)`. Without a `padding_id`, row `i` is for the text's token `i`. With a
            `padding_id`, row 0 is for padding tokens and row `i` for the text's `i`th other token, counted from 1.
        padding_id: Token id that has position 0; None if every token counts.
        types: `(types, size)`. None if there is only one type; `positions` then contains its row.
        norm: Layer norm of the sum.
        projection: From `size` to `hidden`; None if they are equal.
    """

    name: str
    words: FloatArray
    positions: FloatArray
    padding_id: int | None
    types: FloatArray | None
    norm: LayerNorm
    projection: Linear | None

    @property
    def max_length(self) -> int:
        """Largest number of tokens that have a position."""
        return len(self.positions) - (self.padding_id is not None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One transformer layer with a layer norm after each residual sum (post-norm)."""

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: LayerNorm
    intermediate: Linear
    output: Linear
    output_norm: LayerNorm


@dataclass(frozen=True)
class AttentionHeads:
    """Attention heads of a layer.

    Attributes:
        count: Number of heads.
        size: Values of a token's query, key or value that one head reads.
    """

    count: int
    size: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoder:
    """A transformer encoder.

    Attributes:
        embeddings: First part of the encoder.
        layers: Layers in the order in which they run.
        attention_heads: Number of attention heads; it divides `hidden`.
        activation: Hugging Face name of the activation between the feed-forward layers.
        distance_bias: Bias of the attention scores by distance, `(2 * n - 1, attention_heads)` with `n` at least the
            maximum length; row `key - query + n - 1`. None for encoders without such a bias.
        pooler: Dense layer of the pooler, `tanh(first token @ weight + bias)`; None if the checkpoint has no pooler.
    """

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    attention_heads: int
    activation: str
    distance_bias: FloatArray | None
    pooler: Linear | None

    @property
    def hidden(self) -> int:
        """Width of the hidden states."""
        projection = self.embeddings.projection
        return int((self.embeddings.norm if projection is None else projection).bias.size)


class Reads(StrEnum):
    """Part of the encoder's results that a head reads."""

    TOKENS = "tokens"
    FIRST_TOKEN = "first_token"  # noqa: S105 - not a password
    POOLED = "pooled"


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadWeights:
    """A head: an optional dense layer, and the layer that gives the logits.

    Attributes:
        reads: Input of the head. The inputs from several encoders are concatenated.
        dense: Layer before `logits`, followed by `activation`; None if there is none.
        activation: Hugging Face name of the activation after `dense`.
        logits: Layer that gives the logits.
        outputs: Names of the graph's outputs: one for all logits, or one for each column of logits.
    """

    reads: Reads
    dense: Linear | None
    activation: str
    logits: Linear
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense:
    """A layer on the pooled vector, `activation(linear(x))`.

    Attributes:
        linear: Linear layer.
        activation: Name of the activation's class in `torch.nn`.
        adds_input: Whether the input is added to the result.
        projection: Projection of the input that is added, from `in` to `out`; None if they are equal.
    """

    linear: Linear
    activation: str
    adds_input: bool = False
    projection: Linear | None = None


class UnitNorm:
    """Scaling of the pooled vector to length 1."""


SentenceModule = Dense | LayerNorm | UnitNorm
"""Module between the pooling and the normalization of a sentence embedding."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Description:
    """A whole model.

    Attributes:
        encoders: One encoder, or two: the first reads pairs as (first, second), the second as (second, first).
        heads: Heads on the encoders; empty for an encoder alone.
        modules: Modules between the pooling and the normalization of a sentence embedding, in their order.
    """

    encoders: tuple[Encoder, ...]
    heads: tuple[HeadWeights, ...]
    modules: tuple[SentenceModule, ...] = ()
