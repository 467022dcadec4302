"""Find weights in a checkpoint. These tables are the only place that knows Hugging Face names of weights.

A new architecture is one more function in this folder, which returns its table for a configuration, and an entry in
`ARCHITECTURES`. `table` has the form of a table, `reader` makes the description from it.
"""

from collections.abc import Callable, Mapping
from typing import Any

from encort.export.graph.architectures import post_norm, pre_norm, rotary
from encort.export.graph.architectures.albert import albert
from encort.export.graph.architectures.deberta import deberta_v2
from encort.export.graph.architectures.masked_words import describe_masked_words
from encort.export.graph.architectures.reader import EncoderReader, read_linear, read_norm
from encort.export.graph.architectures.table import Architecture
from encort.export.graph.description import Encoder, HeadWeights, Reads, VocabularyHead
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError

__all__ = ["ARCHITECTURES", "describe_dual_encoder_head", "describe_encoder", "describe_head"]

ARCHITECTURES: Mapping[str, Callable[[Any], Architecture]] = {
    "bert": post_norm.bert,
    "roberta": post_norm.roberta,
    "xlm-roberta": post_norm.roberta,
    "camembert": post_norm.roberta,
    "electra": post_norm.electra,
    "distilbert": post_norm.distilbert,
    "mpnet": post_norm.mpnet,
    "albert": albert,
    "deberta-v2": deberta_v2,
    "modernbert": pre_norm.modernbert,
    "eurobert": pre_norm.eurobert,
    "nomic_bert": rotary.nomic_bert,
    "gte": rotary.gte,
    "jina_embeddings_v3": rotary.jina_embeddings_v3,
}
"""Tables by the `model_type` in `config.json`."""


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
    return EncoderReader(names, weights, prefix, config).encoder()


def describe_head(
    config: Any,
    weights: Mapping[str, FloatArray],
    task: Task,
    encoder: Encoder,
    *,
    outputs: tuple[str, ...],
    prefix: str = "",
) -> HeadWeights | VocabularyHead:
    """Describe a checkpoint's head.

    Args:
        config: The transformers configuration of the checkpoint.
        weights: The state dict as float32 arrays.
        task: Task of the head.
        encoder: Description of the encoder, whose embeddings the head may share.
        outputs: Names for the graph's outputs.
        prefix: Prefix for the names of its weights in the graph; several heads in one graph need different ones.

    Raises:
        CheckpointError: The architecture is not in the table.
    """
    architecture = _architecture(config)
    if task is Task.FILL_MASK:
        return describe_masked_words(config, weights, architecture, encoder, outputs=outputs, prefix=prefix)
    names = architecture.token_heads.get(task) or architecture.classifier
    return HeadWeights(
        reads=names.reads,
        dense=None if names.dense is None else read_linear(weights, names.dense, prefix),
        activation=names.activation,
        norm=None if names.norm is None else read_norm(weights, names.norm, architecture, prefix),
        logits=read_linear(weights, names.logits, prefix),
        outputs=outputs,
    )


def describe_dual_encoder_head(weights: Mapping[str, FloatArray]) -> HeadWeights:
    """Describe the head of a dual encoder: a linear layer on both pooled vectors."""
    classifier = read_linear(weights, "classifier")
    return HeadWeights(reads=Reads.POOLED, dense=None, activation="tanh", logits=classifier, outputs=("logits",))


def _architecture(config: Any) -> Architecture:
    try:
        table = ARCHITECTURES[config.model_type]
    except KeyError:
        known = ", ".join(ARCHITECTURES)
        raise CheckpointError(
            f"architecture {config.model_type!r} has no authored graph; encort knows: {known}"
        ) from None
    return table(config)
