"""Which weight is what: one table an architecture, the only place that knows Hugging Face names."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.export.graph.description import Embeddings, Encoder, HeadWeights, Layer, LayerNorm, Linear, Reads
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError
from encort.runtime.cuda.packing import COLUMNS


@dataclass(frozen=True, kw_only=True)
class HeadNames:
    """Where a head reads and what its layers are called; `dense` is followed by `activation`."""

    reads: Reads
    dense: str | None = None
    activation: str = "tanh"
    logits: str


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Names of an architecture's weights, without `.weight` and `.bias`; None where it has no such thing.

    Attributes:
        prefix: Of the encoder in a checkpoint with a head; encoders saved alone go without.
        layer: Of one layer; `{}` is its number. The names below it are relative to it.
        classifier: The head of its `ForSequenceClassification`.
        activation: The setting that names the activation of the feed-forward layer.
        has_padding_position: Whether the padding token has a position of its own, before those that count.
        padding_id: Its id; None takes the settings'.
        epsilon: Of the norms; None takes the settings'.
        distances: Table of biases by the distance of two tokens, in buckets.
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
    has_padding_position: bool = False
    padding_id: int | None = None
    epsilon: float | None = None
    distances: str | None = None


_TWO_LAYERS = HeadNames(reads=Reads.FIRST_TOKEN, dense="classifier.dense", logits="classifier.out_proj")

BERT = Architecture(
    prefix="bert.", classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="classifier")
)
ROBERTA = Architecture(prefix="roberta.", has_padding_position=True, classifier=_TWO_LAYERS)
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
    has_padding_position=True,
    padding_id=1,
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
"""By `model_type` of `config.json`."""

_TOKEN_HEADS = {
    Task.TOKEN_CLASSIFICATION: HeadNames(reads=Reads.TOKENS, logits="classifier"),
    Task.QUESTION_ANSWERING: HeadNames(reads=Reads.TOKENS, logits="qa_outputs"),
    Task.NEXT_SENTENCE_PREDICTION: HeadNames(
        reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="cls.seq_relationship"
    ),
}
"""Heads that are called alike in every architecture."""


def describe_encoder(config: Any, weights: Mapping[str, FloatArray], *, prefix: str = "") -> Encoder:
    """The neutral description of an encoder.

    Args:
        config: Its transformers configuration.
        weights: Its state dict as float32 arrays.
        prefix: Before all of its names, where it is a part of a larger model.

    Raises:
        CheckpointError: The architecture is not in the table, or is set in a way that the graph does not know.
    """
    names = _architecture(config)
    if getattr(config, "position_embedding_type", "absolute") != "absolute" or getattr(config, "is_decoder", False):
        raise CheckpointError(f"only {config.model_type} encoders with absolute positions can be exported")
    if f"{prefix}{names.prefix}{names.words}.weight" in weights:
        prefix += names.prefix
    return _Reader(names, weights, prefix, config).encoder()


def describe_head(
    config: Any, weights: Mapping[str, FloatArray], task: Task, *, outputs: tuple[str, ...], prefix: str = ""
) -> HeadWeights:
    """The neutral description of a checkpoint's head.

    Args:
        outputs: Names for the graph's outputs.
        prefix: For the names of its weights in the graph, so that several heads can stand in one.
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
    """The linear layer on the pooled vectors of two encoders."""
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
    """Looks an encoder's weights up by the table's names."""

    def __init__(self, names: Architecture, weights: Mapping[str, FloatArray], prefix: str, config: Any) -> None:
        self._names, self._weights, self._prefix, self._config = names, weights, prefix, config
        self._epsilon = config.layer_norm_eps if names.epsilon is None else names.epsilon

    def encoder(self) -> Encoder:
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
        positions, padding_id = self._table(names.positions), None
        if names.has_padding_position:
            padding_id = self._config.pad_token_id if names.padding_id is None else names.padding_id
            positions = positions[padding_id:]
        types = None if names.types is None else self._table(names.types)
        if types is not None and len(types) == 1:
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
        table = self._table(str(self._names.distances))
        longest = max_length + COLUMNS - 1  # packed rows are that much wider
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
    # torch stores (out, in).
    weight = np.ascontiguousarray(weights[f"{name}.weight"].T)
    return Linear(name=prefix + name, weight=weight, bias=weights[f"{name}.bias"])


def _buckets(distances: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each distance `key - query`, as T5 and MPNet have it (Raffel et al. 2020, section 2.1).

    Sixteen of the 32 buckets are for keys after the query. In each half, the first half are for one distance each, the
    others grow with the logarithm up to a distance of 128.
    """
    half, distance = 16, np.abs(distances)
    exact = half // 2
    ratio = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / math.log(128 / exact)
    grown = np.minimum(exact + (ratio * (half - exact)).astype(np.int64), half - 1)
    found: NDArray[np.int64] = np.where(distances > 0, half, 0) + np.where(distance < exact, distance, grown)
    return found
