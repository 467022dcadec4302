"""ALBERT: groups of layers that share their weights."""

from collections.abc import Sequence
from typing import Any

from encort.export.graph.architectures.table import Architecture, HeadNames
from encort.export.graph.description import Reads


def albert(config: Any) -> Architecture:
    """Return the table of ALBERT."""
    return Architecture(
        prefix="albert.",
        projection="encoder.embedding_hidden_mapping_in",
        layer="encoder.albert_layer_groups.{}.albert_layers.{}.",
        layer_numbers=_layer_numbers(config),
        query="attention.query",
        key="attention.key",
        value="attention.value",
        attention_output="attention.dense",
        attention_norm="attention.LayerNorm",
        intermediate="ffn",
        output="ffn_output",
        output_norm="full_layer_layer_norm",
        pooler="pooler",
        classifier=HeadNames(reads=Reads.FIRST_TOKEN, dense="albert.pooler", logits="classifier"),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
    )


def _layer_numbers(config: Any) -> Sequence[tuple[int, int]]:
    """Return the group, and the number in the group, of each layer that runs.

    A group runs all of its layers as one, so that `num_hidden_layers` counts runs of groups.
    """
    runs, groups = config.num_hidden_layers, config.num_hidden_groups
    # Divided as transformers divides, whose rounding decides where the groups do not divide the runs.
    numbers = [int(run / (runs / groups)) for run in range(runs)]
    return [(group, inner) for group in numbers for inner in range(config.inner_group_num)]
