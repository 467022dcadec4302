"""One neutral description of a model: weights by what they do, not by what a library calls them.

Every weight of a linear layer is `(in, out)`, so that a graph computes `x @ weight + bias`.
"""

from dataclasses import dataclass
from enum import StrEnum

from encort.runtime.common.arrays import FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear:
    """`x @ weight + bias`; `weight` is `(in, out)` and `bias` `(out,)`."""

    name: str
    weight: FloatArray
    bias: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerNorm:
    """Normalization over the last axis; `weight` and `bias` are `(hidden,)`."""

    name: str
    weight: FloatArray
    bias: FloatArray
    epsilon: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Embeddings:
    """Sum of tables, then a norm, then a projection where the tables are narrower than the layers.

    Attributes:
        name: Before the names of the tables.
        words: `(vocabulary, size)`.
        positions: `(positions, size)`; row `i` belongs to the text's token `i`. With a `padding_id`, row 0 belongs to
            that token, wherever it stands, and row `i` to the text's `i`th other one.
        padding_id: The token that is not counted; None where all are.
        types: `(types, size)`; None where one type is all there is, and then it lies in `positions`.
        projection: From `size` to `hidden`; None where they are equal.
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
        """Most tokens that have a position."""
        return len(self.positions) - (self.padding_id is not None)


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One post-norm transformer layer."""

    query: Linear
    key: Linear
    value: Linear
    attention_output: Linear
    attention_norm: LayerNorm
    intermediate: Linear
    output: Linear
    output_norm: LayerNorm


@dataclass(frozen=True, eq=False, kw_only=True)
class Encoder:
    """An encoder.

    Attributes:
        attention_heads: Number of attention heads; divides `hidden`.
        activation: Of the feed-forward layer, by its Hugging Face name.
        distance_bias: `(2 * max_length - 1, attention_heads)`, added to the attention scores: row
            `key - query + max_length - 1`. None where positions are in the embeddings alone.
        pooler: Dense layer of the pooler, `tanh(first token @ weight + bias)`, if the checkpoint has one.
    """

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    attention_heads: int
    activation: str
    distance_bias: FloatArray | None
    pooler: Linear | None

    @property
    def hidden(self) -> int:
        projection = self.embeddings.projection
        return int((self.embeddings.norm if projection is None else projection).bias.size)


class Reads(StrEnum):
    """What a head reads of the encoder."""

    TOKENS = "tokens"
    FIRST_TOKEN = "first_token"  # noqa: S105 - not a password
    POOLED = "pooled"


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadWeights:
    """One dense layer, if any, and the layer that gives the logits.

    Attributes:
        reads: Its input; that of several encoders is put side by side.
        dense: Followed by `activation`, before `logits`.
        outputs: Names of the graph's outputs: one for all logits, or one for each.
    """

    reads: Reads
    dense: Linear | None
    activation: str
    logits: Linear
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Description:
    """A whole model.

    Attributes:
        encoders: One, or two that read a pair of texts in either order.
    """

    encoders: tuple[Encoder, ...]
    heads: tuple[HeadWeights, ...]
