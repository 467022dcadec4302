"""One neutral description of an encoder: weights by what they do, not by what a library calls them.

Every weight of a linear layer is `(in, out)`, so that a graph computes `x @ weight + bias`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


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
    """Sum of three tables, then a norm.

    Attributes:
        words: `(vocabulary, hidden)`.
        positions: `(positions, hidden)`.
        types: `(types, hidden)`.
    """

    words: FloatArray
    positions: FloatArray
    types: FloatArray
    norm: LayerNorm


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
    """An encoder with its heads.

    Attributes:
        attention_heads: Number of attention heads; divides `hidden`.
        activation: Of the feed-forward layer, by its Hugging Face name.
        pooler: Dense layer of the pooler, if the checkpoint has one.
        classifier: Dense layer that gives the logits, if the checkpoint has one.
    """

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    attention_heads: int
    activation: str
    pooler: Linear | None
    classifier: Linear | None

    @property
    def hidden(self) -> int:
        return int(self.embeddings.words.shape[1])
