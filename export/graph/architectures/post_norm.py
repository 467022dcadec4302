"""BERT and the encoders with its layers: a norm after each residual sum."""

from typing import Any

from encort.export.graph.architectures.table import Architecture, HeadNames
from encort.export.graph.description import Reads


def bert(config: Any) -> Architecture:
    """Return the table of BERT."""
    classifier = HeadNames(reads=Reads.FIRST_TOKEN, dense="bert.pooler.dense", logits="classifier")
    return Architecture(
        prefix="bert.", classifier=classifier, activation=config.hidden_act, epsilon=config.layer_norm_eps
    )


def roberta(config: Any) -> Architecture:
    """Return the table of RoBERTa, XLM-RoBERTa and CamemBERT."""
    return Architecture(
        prefix="roberta.", classifier=_two_layers(), activation=config.hidden_act, epsilon=config.layer_norm_eps
    )


def electra(config: Any) -> Architecture:
    """Return the table of ELECTRA."""
    return Architecture(
        prefix="electra.",
        projection="embeddings_project",
        pooler=None,
        classifier=_two_layers(activation="gelu"),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
    )


def distilbert(config: Any) -> Architecture:
    """Return the table of DistilBERT."""
    return Architecture(
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
        classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense="pre_classifier", activation="relu", logits="classifier"),
        activation=config.activation,
        epsilon=1e-12,
    )


def mpnet(config: Any) -> Architecture:
    """Return the table of MPNet."""
    return Architecture(
        prefix="mpnet.",
        types=None,
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        classifier=_two_layers(),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        distances="encoder.relative_attention_bias",
    )


def _two_layers(activation: str = "tanh") -> HeadNames:
    return HeadNames(
        reads=Reads.FIRST_TOKEN, dense="classifier.dense", activation=activation, logits="classifier.out_proj"
    )
