"""Heads, modules of sentence embeddings, and the whole model."""

from dataclasses import dataclass
from enum import StrEnum

from encort.export.graph.description.encoder import Encoder
from encort.export.graph.description.linears import LayerNorm, Linear, Norm
from encort.runtime.common.arrays import FloatArray


class Reads(StrEnum):
    """Part of the encoder's results that a head reads."""

    TOKENS = "tokens"
    FIRST_TOKEN = "first_token"  # noqa: S105 - not a password
    POOLED = "pooled"
    MEAN = "mean"
    TOKENS_THEN_MEAN = "tokens_then_mean"
    """All tokens; the logits read the mean of a text's results of the layers before them."""


@dataclass(frozen=True, eq=False, kw_only=True)
class HeadWeights:
    """A head: an optional dense layer, an optional norm of its result, and the layer that gives the logits.

    Attributes:
        reads: Input of the head. The inputs from several encoders are concatenated.
        dense: Layer before `logits`, followed by `activation`; None if there is none.
        activation: Hugging Face name of the activation after `dense`.
        norm: Norm after the activation; None if there is none.
        logits: Layer that gives the logits.
        outputs: Names of the graph's outputs: one for all logits, or one for each column of logits.
    """

    reads: Reads
    dense: Linear | None
    activation: str
    norm: Norm | None = None
    logits: Linear
    outputs: tuple[str, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class VocabularyHead:
    """A head that predicts words: `norm(activation(dense(x))) @ words.T + bias`, or `x @ words.T + bias`.

    Attributes:
        name: Prefix of its weights' names in the graph.
        dense: First layer, followed by `activation`; None if there is none.
        activation: Hugging Face name of the activation.
        norm: Norm after the activation; None if there is none.
        words: `(vocabulary, size)`. It is `Embeddings.words` itself if the checkpoint ties both.
        bias: `(vocabulary,)`; None if there is none.
        outputs: Name of the graph's output.
    """

    name: str
    dense: Linear | None
    activation: str
    norm: Norm | None
    words: FloatArray
    bias: FloatArray | None
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
class Expansion:
    """A weight for every word of the vocabulary, from the logits of all tokens of a text (SPLADE, Formal et al. 2021).

    Attributes:
        words: Head that gives the logits of each token.
        pooling: `max`, the largest weight over the tokens, or `sum`.
        logarithms: How often `log(1 + x)` is taken of the positive logits: once or twice.
    """

    words: VocabularyHead
    pooling: str
    logarithms: int


@dataclass(frozen=True, eq=False, kw_only=True)
class RetrievalWeights:
    """Layers on the hidden states of each token.

    Attributes:
        projection: Modules that make the vector of a token, which is then scaled to length 1; None: there are none.
        token_weights: Layer that gives each token a weight, cut at 0; None: there is none.
        expansion: Weights of the words of the vocabulary; None: there are none.
    """

    projection: tuple[SentenceModule, ...] | None = None
    token_weights: Linear | None = None
    expansion: Expansion | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Description:
    """A whole model.

    Attributes:
        encoders: One encoder, or two: the first reads pairs as (first, second), the second as (second, first).
        heads: Heads on the encoders; empty for an encoder alone.
        modules: Modules between the pooling and the normalization of a sentence embedding, in their order.
        retrieval: Layers on the hidden states of each token.
    """

    encoders: tuple[Encoder, ...]
    heads: tuple[HeadWeights | VocabularyHead, ...]
    modules: tuple[SentenceModule, ...] = ()
    retrieval: RetrievalWeights = RetrievalWeights()
