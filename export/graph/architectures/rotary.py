"""Angles of rotary positions; NomicBERT, GTE and jina-embeddings-v3: the layers of BERT with such positions."""

from dataclasses import replace
from typing import Any

from encort.export.graph.architectures.table import Architecture, HeadNames, RotaryAngles
from encort.export.graph.description import Reads
from encort.runtime.common.checkpoints.majors import FULL_ATTENTION, rotary_settings
from encort.runtime.common.errors import CheckpointError


def nomic_bert(config: Any) -> Architecture:
    """Return the table of NomicBERT.

    Raises:
        CheckpointError: The configuration scales its rotary positions, and not linearly.
    """
    return _post_norm(config, "nomic_bert.")


def gte(config: Any) -> Architecture:
    """Return the table of GTE, whose authors call it `new`.

    Raises:
        CheckpointError: The configuration scales its rotary positions, and not linearly.
    """
    return _post_norm(config, "gte.")


def jina_embeddings_v3(config: Any) -> Architecture:
    """Return the table of jina-embeddings-v3.

    Raises:
        CheckpointError: The configuration scales its rotary positions, and not linearly.
    """
    head = HeadNames(reads=Reads.FIRST_TOKEN, dense="classifier.dense", logits="classifier.out_proj")
    table = _post_norm(config, "roberta.")
    return replace(table, intermediate="mlp.fc1", gate=None, output="mlp.fc2", classifier=head)


def _post_norm(config: Any, prefix: str) -> Architecture:
    return Architecture(
        prefix=prefix,
        positions=None,
        layer="layers.{}.",
        query="self_attn.q_proj",
        key="self_attn.k_proj",
        value="self_attn.v_proj",
        attention_output="self_attn.o_proj",
        attention_norm="post_attention_layernorm",
        intermediate="mlp.gate_proj",
        gate="mlp.up_proj",
        output="mlp.down_proj",
        output_norm="post_mlp_layernorm",
        classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense=f"{prefix}pooler.dense", logits="classifier"),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        rotary=[rotary_angles(config, FULL_ATTENTION)] * config.num_hidden_layers,
    )


def rotary_angles(config: Any, kind: str) -> RotaryAngles:
    """Return the angles of the rotary positions of layers with a kind of attention.

    Raises:
        CheckpointError: The positions are scaled in another way than linearly.
    """
    settings = rotary_settings(config, kind)
    scaling = settings.get("rope_type", "default")
    if scaling not in ("default", "linear"):
        raise CheckpointError(
            f"{config.model_type} with rope_type={scaling!r} has no authored graph; encort authors rotary positions "
            "without scaling, or with a linear one (rope_type 'default' or 'linear' in config.json)"
        )
    factor = float(settings["factor"]) if scaling == "linear" else 1.0
    return RotaryAngles(base=float(settings["rope_theta"]), factor=factor)
