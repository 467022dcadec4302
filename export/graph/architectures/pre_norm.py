"""ModernBERT and EuroBERT: norms before attention and feed-forward, rotary positions, gated feed-forward."""

from collections.abc import Mapping
from typing import Any

from encort.export.graph.architectures.rotary import rotary_angles
from encort.export.graph.architectures.table import Architecture, HeadNames
from encort.export.graph.description import NormPlacement, Part, Reads
from encort.runtime.bundle.manifest import Task
from encort.runtime.common.checkpoints.majors import FULL_ATTENTION, attention_kinds
from encort.runtime.common.errors import CheckpointError

_MODERNBERT_POOLING = {"cls": Reads.FIRST_TOKEN, "mean": Reads.MEAN}
_EUROBERT_POOLING = {"bos": Reads.FIRST_TOKEN, "mean": Reads.MEAN, "late": Reads.TOKENS_THEN_MEAN}


def modernbert(config: Any) -> Architecture:
    """Return the table of ModernBERT.

    Raises:
        CheckpointError: The configuration scales its rotary positions other than linearly, or pools in an unknown way.
    """
    kinds = attention_kinds(config)
    window = config.local_attention // 2
    return Architecture(
        prefix="model.",
        words="embeddings.tok_embeddings",
        positions=None,
        types=None,
        embedding_norm="embeddings.norm",
        layer="layers.{}.",
        query=Part("attn.Wqkv", 0, 3),
        key=Part("attn.Wqkv", 1, 3),
        value=Part("attn.Wqkv", 2, 3),
        attention_output="attn.Wo",
        attention_norm="attn_norm",
        intermediate=Part("mlp.Wi", 0, 2),
        gate=Part("mlp.Wi", 1, 2),
        output="mlp.Wo",
        output_norm="mlp_norm",
        final_norm="final_norm",
        pooler=None,
        classifier=_modernbert_head(config, _pooling(config, _MODERNBERT_POOLING)),
        token_heads={
            task: _modernbert_head(config, Reads.TOKENS)
            for task in (Task.TOKEN_CLASSIFICATION, Task.QUESTION_ANSWERING)
        },
        activation=config.hidden_activation,
        epsilon=config.norm_eps,
        placement=NormPlacement.PRE,
        has_first_norm=False,
        rotary=[rotary_angles(config, kind) for kind in kinds],
        windows=[None if kind == FULL_ATTENTION else window for kind in kinds],
    )


def _modernbert_head(config: Any, reads: Reads) -> HeadNames:
    return HeadNames(
        reads=reads,
        dense="head.dense",
        activation=config.classifier_activation,
        norm="head.norm",
        logits="classifier",
    )


def eurobert(config: Any) -> Architecture:
    """Return the table of EuroBERT.

    Raises:
        CheckpointError: The configuration scales its rotary positions other than linearly, or pools in an unknown way.
    """
    return Architecture(
        prefix="model.",
        words="embed_tokens",
        positions=None,
        types=None,
        embedding_norm=None,
        layer="layers.{}.",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attention_output="self_attn.o_proj",
        attention_norm="input_layernorm",
        intermediate="mlp.gate_proj",
        gate="mlp.up_proj",
        output="mlp.down_proj",
        output_norm="post_attention_layernorm",
        final_norm="norm",
        pooler=None,
        classifier=HeadNames(
            reads=_pooling(config, _EUROBERT_POOLING), dense="dense", activation="gelu", logits="classifier"
        ),
        activation=config.hidden_act,
        epsilon=config.rms_norm_eps,
        placement=NormPlacement.PRE,
        is_rms=True,
        rotary=[rotary_angles(config, FULL_ATTENTION)] * config.num_hidden_layers,
    )


def _pooling(config: Any, known: Mapping[str, Reads]) -> Reads:
    try:
        return known[config.classifier_pooling]
    except KeyError:
        raise CheckpointError(
            f"{config.model_type} with classifier_pooling={config.classifier_pooling!r} has no authored graph; "
            f"encort authors: {', '.join(known)}"
        ) from None
