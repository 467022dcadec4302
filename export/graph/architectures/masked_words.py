"""Names of the weights of `ForMaskedLM` classes, and their choice of parts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from encort.export.graph.architectures.reader import read_linear, read_norm
from encort.export.graph.architectures.table import Architecture
from encort.export.graph.description import Encoder, VocabularyHead
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError


@dataclass(frozen=True, kw_only=True)
class MaskedWordNames:
    """Names of the layers of a head that predicts words, without `.weight` and `.bias`.

    Attributes:
        dense: First layer; None if there is none.
        norm: Norm after the activation; None if there is none.
        words: Layer that gives the logits.
        bias: Bias of the logits.
        activation: Hugging Face name of the activation after `dense`.
    """

    dense: str | None = None
    norm: str | None = None
    words: str
    bias: str
    activation: str = "gelu"


def _bert(config: Any) -> MaskedWordNames:
    name = "cls.predictions"
    return MaskedWordNames(
        dense=f"{name}.transform.dense",
        norm=f"{name}.transform.LayerNorm",
        words=f"{name}.decoder",
        bias=f"{name}.bias",
        activation=config.hidden_act,
    )


def _roberta(_: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        words="lm_head.decoder",
        bias="lm_head.bias",
    )


def _electra(_: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        words="generator_lm_head",
        bias="generator_lm_head.bias",
    )


def _distilbert(config: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        words="vocab_projector",
        bias="vocab_projector.bias",
        activation=config.activation,
    )


def _albert(config: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="predictions.dense",
        norm="predictions.LayerNorm",
        words="predictions.decoder",
        bias="predictions.bias",
        activation=config.hidden_act,
    )


def _modernbert(config: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="head.dense",
        norm="head.norm",
        words="decoder",
        bias="decoder.bias",
        activation=config.classifier_activation,
    )


def _eurobert(_: Any) -> MaskedWordNames:
    return MaskedWordNames(words="lm_head", bias="lm_head.bias")


def _nomic_bert(config: Any) -> MaskedWordNames:
    name = "cls.predictions"
    return MaskedWordNames(
        dense=f"{name}.transform.dense",
        norm=f"{name}.transform.layer_norm",
        words=f"{name}.decoder",
        bias=f"{name}.decoder.bias",
        activation=config.hidden_act,
    )


def _gte(_: Any) -> MaskedWordNames:
    return MaskedWordNames(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        words="lm_head.decoder",
        bias="lm_head.decoder.bias",
    )


_NAMES: Mapping[str, Callable[[Any], MaskedWordNames]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "mpnet": _roberta,
    "electra": _electra,
    "distilbert": _distilbert,
    "albert": _albert,
    "deberta-v2": _bert,
    "modernbert": _modernbert,
    "eurobert": _eurobert,
    "nomic_bert": _nomic_bert,
    "gte": _gte,
    "jina_embeddings_v3": _roberta,
}
"""Tables by the `model_type` in `config.json`."""


def describe_masked_words(
    config: Any,
    weights: Mapping[str, FloatArray],
    architecture: Architecture,
    encoder: Encoder,
    *,
    outputs: tuple[str, ...],
    prefix: str = "",
) -> VocabularyHead:
    """Describe the head of a `ForMaskedLM` class.

    Args:
        config: The transformers configuration of the checkpoint.
        weights: The state dict as float32 arrays.
        architecture: Table of the encoder.
        encoder: Description of the encoder. Where the head has the same table of words, both share it.
        outputs: Name of the graph's output.
        prefix: See `describe_head`.

    Raises:
        CheckpointError: The head of the architecture, or this form of it, is not in the table.
    """
    names = _NAMES[config.model_type](config) if config.model_type in _NAMES else None
    if names is None or f"{names.words}.weight" not in weights:
        raise CheckpointError(
            f"the words that this {config.model_type} predicts cannot be exported; encort knows the heads of: "
            f"{', '.join(_NAMES)}"
        )
    words, embeddings = weights[f"{names.words}.weight"], encoder.embeddings.words
    return VocabularyHead(
        name=f"{prefix}{names.words}",
        dense=None if names.dense is None else read_linear(weights, names.dense, prefix),
        activation=names.activation,
        norm=None if names.norm is None else read_norm(weights, names.norm, architecture, prefix),
        words=embeddings if np.array_equal(words, embeddings) else words,
        bias=weights.get(names.bias),
        outputs=outputs,
    )
