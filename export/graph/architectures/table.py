"""Form of the tables: names of an architecture's weights, and its choice of parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from encort.export.graph.description import NormPlacement, Part, Reads
from encort.runtime.bundle.manifest import Task

Name = str | Part
"""Name of a linear layer, or its place in a module that holds several."""


@dataclass(frozen=True, kw_only=True)
class HeadNames:
    """Input of a head and the names of its layers.

    Attributes:
        reads: Input of the head.
        dense: Layer before the logits; None if there is none.
        activation: Activation after `dense`.
        norm: Norm after the activation; None if there is none.
        logits: Layer that gives the logits.
    """

    reads: Reads
    dense: str | None = None
    activation: str = "tanh"
    norm: str | None = None
    logits: str


@dataclass(frozen=True, kw_only=True)
class RotaryAngles:
    """Angles of rotary positions: pair `i` of a head with `n` pairs turns by `position / (base ** (i / n) * factor)`.

    Attributes:
        base: Base.
        factor: Linear scaling of the positions.
    """

    base: float
    factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DisentangledNames:
    """Disentangled attention: the names of its weights, and its settings.

    Attributes:
        embeddings: Embeddings of distances.
        norm: Norm of the embeddings; None if there is none.
        rows: Rows of the embeddings by distance, as in `Disentangled`.
        key: Projection of the distances that queries are multiplied with, in a layer; None if there is none.
        query: Projection of the distances that keys are multiplied with, in a layer; None if there is none.
        shares_projections: Whether `key` and `query` are those of the layer's attention.
    """

    embeddings: str
    norm: str | None
    rows: tuple[int, ...]
    key: str | None
    query: str | None
    shares_projections: bool


TOKEN_HEADS: Mapping[Task, HeadNames] = {
    Task.TOKEN_CLASSIFICATION: HeadNames(reads=Reads.TOKENS, logits="classifier"),
    Task.QUESTION_ANSWERING: HeadNames(reads=Reads.TOKENS, logits="qa_outputs"),
    Task.NEXT_SENTENCE_PREDICTION: HeadNames(
        reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="cls.seq_relationship"
    ),
}
"""Heads that have the same names in most architectures."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of an architecture's weights, without `.weight` and `.bias`. None means that it has no such weights.

    Attributes:
        prefix: Prefix of the encoder's weights in a checkpoint with a head. An encoder saved alone has no prefix.
        positions: Positions of the embeddings, if the checkpoint has them.
        types: Token types, if the checkpoint has them.
        layer: Prefix of one layer's weights, with `{}` in the place of each of its numbers. The names from `query` to
            `output_norm` follow this prefix.
        layer_numbers: Numbers of each layer, in the order in which they run. Layers of the same numbers are one layer.
            None stands for 0, 1, 2 ... up to the number of layers.
        gate: Gate of the feed-forward layers.
        final_norm: Norm after the last layer.
        classifier: Head of its `ForSequenceClassification` class.
        token_heads: Heads of its other classes.
        activation: Hugging Face name of the activation of the feed-forward layers.
        epsilon: Epsilon of the norms.
        placement: Place of the norms in a layer.
        is_rms: Whether the norms are RMS norms.
        has_first_norm: Whether the attention of the first layer has a norm.
        distances: Table of attention biases by bucket of distance.
        disentangled: Disentangled attention; None for an architecture without it.
        rotary: Angles of the rotary positions of each layer; None for an architecture without them.
        windows: For each layer, the largest distance of two tokens that see each other, None if all of a text do; None
            for an architecture without such layers.
    """

    prefix: str
    words: str = "embeddings.word_embeddings"
    positions: str | None = "embeddings.position_embeddings"
    types: str | None = "embeddings.token_type_embeddings"
    embedding_norm: str | None = "embeddings.LayerNorm"
    projection: str | None = None
    layer: str = "encoder.layer.{}."
    layer_numbers: Sequence[tuple[int, ...]] | None = None
    query: Name = "attention.self.query"
    key: Name = "attention.self.key"
    value: Name = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: Name = "intermediate.dense"
    gate: Name | None = None
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    final_norm: str | None = None
    pooler: str | None = "pooler.dense"
    classifier: HeadNames
    token_heads: Mapping[Task, HeadNames] = field(default_factory=lambda: TOKEN_HEADS)
    activation: str
    epsilon: float
    placement: NormPlacement = NormPlacement.POST
    is_rms: bool = False
    has_first_norm: bool = True
    distances: str | None = None
    disentangled: DisentangledNames | None = None
    rotary: Sequence[RotaryAngles] | None = None
    windows: Sequence[int | None] | None = None
