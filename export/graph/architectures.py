"""Find weights in a checkpoint: one table per architecture, the only place that knows Hugging Face names of weights."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.export.graph.description import Embeddings, Encoder, HeadWeights, Layer, LayerNorm, Linear, Reads
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.checkpoints.positions import padding_position
from encort.runtime.common.errors import CheckpointError
from encort.runtime.cuda.packing import COLUMN_MULTIPLE


@dataclass(frozen=True, kw_only=True)
class HeadNames:
    """Input of a head and the names of its layers.

    Attributes:
        reads: Input of the head.
        dense: Layer before the logits; None if there is none.
        activation: Activation after `dense`.
        logits: Layer that gives the logits.
    """

    reads: Reads
    dense: str | None = None
    activation: str = "tanh"
    logits: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of an architecture's weights, without `.weight` and `.bias`. None means that it has no such weights.

    Attributes:
        prefix: Prefix of the encoder's weights in a checkpoint with a head. An encoder saved alone has no prefix.
        layer: Prefix of one layer's weights; `{}` is the layer's number. The names from `query` to `output_norm` follow
            this prefix.
        classifier: Head of its `ForSequenceClassification` class.
        activation: Name of the setting for the activation of the feed-forward layers.
        epsilon: Epsilon of the layer norms; None takes it from the configuration.
        distances: Table of attention biases by bucket of distance.
    """

    prefix: str
    words: str = "embeddings.word_embeddings"
    positions: str = "embeddings.position_embeddings"
    types: str | None = "embeddings.token_type_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    projection: str | None = None
    layer: str = "encoder.layer.{}."
    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    attention_output: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    intermediate: str = "intermediate.dense"
    output: str = "output.dense"
    output_norm: str = "output.LayerNorm"
    pooler: str | None = "pooler.dense"
    classifier: HeadNames
    activation: str = "hidden_act"
    epsilon: float | None = None
    distances: str | None = None


_TWO_LAYERS = HeadNames(reads=Reads.FIRST_TOKEN, dense="classifier.dense", logits="classifier.out_proj")

BERT = Architecture(
    prefix="bert.", classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="classifier")
)
ROBERTA = Architecture(prefix="roberta.", classifier=_TWO_LAYERS)
ELECTRA = Architecture(
    prefix="electra.",
    projection="embeddings_project",
    pooler=None,
    classifier=replace(_TWO_LAYERS, activation="gelu"),
)
DISTILBERT = Architecture(
    prefix="distilbert.",
    types=None,
    layer="transformer.layer.{}.",
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    attention_output="attention.out_lin",
    attention_norm="sa_layer_norm",
    intermediate="ffn.lin1",
    output="ffn.lin2",
    output_norm="output_layer_norm",
    pooler=None,
    epsilon=1e-12,
    classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense="pre_classifier", activation="relu", logits="classifier"),
    activation="activation",
)
MPNET = Architecture(
    prefix="mpnet.",
    types=None,
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    attention_output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    classifier=_TWO_LAYERS,
    distances="encoder.relative_attention_bias",
)

ARCHITECTURES: Mapping[str, Architecture] = {
    "bert": BERT,
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "electra": ELECTRA,
    "distilbert": DISTILBERT,
    "mpnet": MPNET,
}
"""Architectures by the `model_type` in `config.json`."""

_TOKEN_HEADS = {
    Task.TOKEN_CLASSIFICATION: HeadNames(reads=Reads.TOKENS, logits="classifier"),
    Task.QUESTION_ANSWERING: HeadNames(reads=Reads.TOKENS, logits="qa_outputs"),
    Task.NEXT_SENTENCE_PREDICTION: HeadNames(
        reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="cls.seq_relationship"
    ),
}
"""Heads that have the same names in every architecture."""


def describe_encoder(config: Any, weights: Mapping[str, FloatArray], *, prefix: str = "") -> Encoder:
    """Describe an encoder.

    Args:
        config: The transformers configuration of the encoder.
        weights: The state dict as float32 arrays.
        prefix: Prefix of all names of the encoder, if it is a part of a larger model.

    Raises:
        CheckpointError: The architecture is not in the table, or it has a setting that the graph does not support.
    """
    names = _architecture(config)
    if getattr(config, "position_embedding_type", "absolute") != "absolute":
        raise CheckpointError(f"only {config.model_type} encoders with absolute positions can be exported")
    if f"{prefix}{names.prefix}{names.words}.weight" in weights:
        prefix += names.prefix
    return _Reader(names, weights, prefix, config).encoder()


def describe_head(
    config: Any, weights: Mapping[str, FloatArray], task: Task, *, outputs: tuple[str, ...], prefix: str = ""
) -> HeadWeights:
    """Describe a checkpoint's head.

    Args:
        config: The transformers configuration of the checkpoint.
        weights: The state dict as float32 arrays.
        task: Task of the head.
        outputs: Names for the graph's outputs.
        prefix: Prefix for the names of its weights in the graph; several heads in one graph need different ones.

    Raises:
        CheckpointError: The architecture is not in the table.
    """
    names = _TOKEN_HEADS.get(task) or _architecture(config).classifier
    return HeadWeights(
        reads=names.reads,
        dense=None if names.dense is None else _linear(weights, names.dense, prefix),
        activation=names.activation,
        logits=_linear(weights, names.logits, prefix),
        outputs=outputs,
    )


def describe_dual_encoder_head(weights: Mapping[str, FloatArray]) -> HeadWeights:
    """Describe the head of a dual encoder: a linear layer on both pooled vectors."""
    classifier = _linear(weights, "classifier")
    return HeadWeights(reads=Reads.POOLED, dense=None, activation="tanh", logits=classifier, outputs=("logits",))


def _architecture(config: Any) -> Architecture:
    try:
        return ARCHITECTURES[config.model_type]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(
            f"architecture {config.model_type!r} has no authored graph; encort knows: {known}"
        ) from None


class _Reader:
    """Reads an encoder's weights by the names of its architecture."""

    def __init__(self, names: Architecture, weights: Mapping[str, FloatArray], prefix: str, config: Any) -> None:
        self._names, self._weights, self._prefix, self._config = names, weights, prefix, config
        self._epsilon = config.layer_norm_eps if names.epsilon is None else names.epsilon

    def encoder(self) -> Encoder:
        """Return the description of the encoder."""
        names, config = self._names, self._config
        embeddings = self._embeddings()
        has_pooler = names.pooler is not None and f"{self._prefix}{names.pooler}.weight" in self._weights
        return Encoder(
            embeddings=embeddings,
            layers=tuple(self._layer(index) for index in range(config.num_hidden_layers)),
            attention_heads=config.num_attention_heads,
            activation=getattr(config, names.activation),
            distance_bias=None if names.distances is None else self._distance_bias(embeddings.max_length),
            pooler=self._linear(str(names.pooler)) if has_pooler else None,
        )

    def _embeddings(self) -> Embeddings:
        names = self._names
        positions, padding_id = self._table(names.positions), padding_position(self._config)
        if padding_id is not None:
            positions = positions[padding_id:]
        types = None if names.types is None else self._table(names.types)
        if types is not None and len(types) == 1:
            # Every token adds the same row, so the positions can hold it.
            positions, types = positions + types, None
        has_projection = names.projection is not None and f"{self._prefix}{names.projection}.weight" in self._weights
        return Embeddings(
            name=f"{self._prefix}embeddings",
            words=self._table(names.words),
            positions=positions,
            padding_id=padding_id,
            types=types,
            norm=self._norm(names.embedding_norm),
            projection=self._linear(str(names.projection)) if has_projection else None,
        )

    def _layer(self, index: int) -> Layer:
        names, layer = self._names, self._names.layer.format(index)
        return Layer(
            query=self._linear(layer + names.query),
            key=self._linear(layer + names.key),
            value=self._linear(layer + names.value),
            attention_output=self._linear(layer + names.attention_output),
            attention_norm=self._norm(layer + names.attention_norm),
            intermediate=self._linear(layer + names.intermediate),
            output=self._linear(layer + names.output),
            output_norm=self._norm(layer + names.output_norm),
        )

    def _distance_bias(self, max_length: int) -> FloatArray:
        """Return the bias of every distance, `(2 * longest - 1, attention_heads)`, in the order of the distances."""
        table = self._table(str(self._names.distances))
        # Packed inputs widen their rows to a multiple of this number.
        longest = max_length + COLUMN_MULTIPLE - 1
        bias: FloatArray = table[_buckets(np.arange(1 - longest, longest))]
        return bias

    def _table(self, name: str) -> FloatArray:
        return self._weights[f"{self._prefix}{name}.weight"]

    def _linear(self, name: str) -> Linear:
        return _linear(self._weights, self._prefix + name)

    def _norm(self, name: str) -> LayerNorm:
        name = self._prefix + name
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return LayerNorm(name=name, weight=weight, bias=bias, epsilon=self._epsilon)


def _linear(weights: Mapping[str, FloatArray], name: str, prefix: str = "") -> Linear:
    # torch stores (out, in), the description has (in, out).
    weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
    return Linear(name=prefix + name, weight=weight, bias=weights[f"{name}.bias"])


def _buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the bucket of each distance `key - query`, as in T5 and MPNet (Raffel et al. 2020, section 2.1).

    There are 32 buckets: 0 to 15 for keys up to the query, 16 to 31 for keys after it. The first eight buckets of each
    half hold one distance each. The width of the other eight grows with the logarithm, up to a distance of 128.
    """
    half, distance = 16, np.abs(distances)
    exact = half // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(128 / exact)
    logarithmic = np.minimum(exact + (ratio * (half - exact)).astype(np.int64), half - 1)
    buckets: NDArray[np.int64] = np.where(distances > 0, half, 0) + np.where(distance < exact, distance, logarithmic)
    return buckets
