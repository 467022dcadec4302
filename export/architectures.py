"""Which weight is what: one table an architecture, the only place that knows Hugging Face names."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from encort.export.description import Embeddings, Encoder, FloatArray, Layer, LayerNorm, Linear
from encort.runtime.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class Names:
    """Names of an architecture's weights, without `.weight` and `.bias`.

    Attributes:
        prefix: Of the encoder in a checkpoint with a head; encoders saved alone go without.
        layer: Of one layer; `{}` is its number. The names below it are relative to it.
    """

    prefix: str
    words: str
    positions: str
    types: str
    embedding_norm: str
    layer: str
    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    intermediate: str
    output: str
    output_norm: str
    pooler: str
    classifier: str


BERT = Names(
    prefix="bert.",
    words="embeddings.word_embeddings",
    positions="embeddings.position_embeddings",
    types="embeddings.token_type_embeddings",
    embedding_norm="embeddings.LayerNorm",
    layer="encoder.layer.{}.",
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    intermediate="intermediate.dense",
    output="output.dense",
    output_norm="output.LayerNorm",
    pooler="pooler.dense",
    classifier="classifier",
)

ARCHITECTURES: Mapping[str, Names] = {"bert": BERT}
"""By `model_type` of `config.json`."""


def describe(config: Any, weights: Mapping[str, FloatArray]) -> Encoder:
    """The neutral description of a checkpoint.

    Args:
        config: Its transformers configuration.
        weights: Its state dict as float32 arrays.

    Raises:
        CheckpointError: The architecture is not in the table, or is set in a way that the graph does not know.
    """
    names = ARCHITECTURES.get(config.model_type)
    if names is None:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(f"architecture {config.model_type!r} cannot be exported yet; encort knows: {known}")
    if getattr(config, "position_embedding_type", "absolute") != "absolute" or config.is_decoder:
        raise CheckpointError(f"only {config.model_type} encoders with absolute positions can be exported")
    return _Reader(names, weights, config.layer_norm_eps).encoder(config)


class _Reader:
    """Looks weights up by the table's names."""

    def __init__(self, names: Names, weights: Mapping[str, FloatArray], epsilon: float) -> None:
        self._names, self._weights, self._epsilon = names, weights, epsilon
        self._prefix = names.prefix if f"{names.prefix}{names.words}.weight" in weights else ""

    def encoder(self, config: Any) -> Encoder:
        names, prefix = self._names, self._prefix
        has_pooler = f"{prefix}{names.pooler}.weight" in self._weights
        has_classifier = f"{names.classifier}.weight" in self._weights
        return Encoder(
            embeddings=self._embeddings(),
            layers=tuple(self._layer(index) for index in range(config.num_hidden_layers)),
            attention_heads=config.num_attention_heads,
            activation=config.hidden_act,
            pooler=self._linear(prefix + names.pooler) if has_pooler else None,
            classifier=self._linear(names.classifier) if has_classifier else None,
        )

    def _embeddings(self) -> Embeddings:
        names, prefix = self._names, self._prefix
        return Embeddings(
            words=self._weights[f"{prefix}{names.words}.weight"],
            positions=self._weights[f"{prefix}{names.positions}.weight"],
            types=self._weights[f"{prefix}{names.types}.weight"],
            norm=self._norm(prefix + names.embedding_norm),
        )

    def _layer(self, index: int) -> Layer:
        names, prefix = self._names, self._prefix + self._names.layer.format(index)
        return Layer(
            query=self._linear(prefix + names.query),
            key=self._linear(prefix + names.key),
            value=self._linear(prefix + names.value),
            attention_output=self._linear(prefix + names.attention_output),
            attention_norm=self._norm(prefix + names.attention_norm),
            intermediate=self._linear(prefix + names.intermediate),
            output=self._linear(prefix + names.output),
            output_norm=self._norm(prefix + names.output_norm),
        )

    def _linear(self, name: str) -> Linear:
        # torch stores (out, in).
        weight = np.ascontiguousarray(self._weights[f"{name}.weight"].T)
        return Linear(name=name, weight=weight, bias=self._weights[f"{name}.bias"])

    def _norm(self, name: str) -> LayerNorm:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return LayerNorm(name=name, weight=weight, bias=bias, epsilon=self._epsilon)
