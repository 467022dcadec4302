"""DeBERTa-v2 and v3: disentangled attention, with buckets of distances that grow with the logarithm."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.export.graph.architectures.table import Architecture, DisentangledNames, HeadNames
from encort.export.graph.description import Reads
from encort.runtime.common.errors import CheckpointError
from encort.runtime.cuda.packing import COLUMN_MULTIPLE


def deberta_v2(config: Any) -> Architecture:
    """Return the table of DeBERTa-v2 and v3.

    Raises:
        CheckpointError: The configuration has a setting that no published checkpoint of version 3 has.
    """
    _check(config)
    return Architecture(
        prefix="deberta.",
        query="attention.self.query_proj",
        key="attention.self.key_proj",
        value="attention.self.value_proj",
        pooler=None,
        classifier=HeadNames(
            reads=Reads.FIRST_TOKEN, dense="pooler.dense", activation=config.pooler_hidden_act, logits="classifier"
        ),
        activation=config.hidden_act,
        epsilon=config.layer_norm_eps,
        disentangled=_disentangled(config),
    )


def _check(config: Any) -> None:
    refused = {
        "conv_kernel_size": getattr(config, "conv_kernel_size", 0) > 0,
        "embedding_size": getattr(config, "embedding_size", config.hidden_size) != config.hidden_size,
        "attention_head_size": getattr(config, "attention_head_size", None)
        not in (None, config.hidden_size // config.num_attention_heads),
        "relative_attention": not config.relative_attention,
        "pos_att_type": not {"c2p", "p2c"} & set(config.pos_att_type or ()),
    }
    for name, is_refused in refused.items():
        if is_refused:
            raise CheckpointError(
                f"{config.model_type} with {name}={getattr(config, name, None)!r} has no authored graph; encort "
                "authors DeBERTa as version 3 is published: relative attention (c2p, p2c), no convolution, and heads "
                "and embeddings of the usual size"
            )


def _disentangled(config: Any) -> DisentangledNames:
    shares = bool(getattr(config, "share_att_key", False))
    key, query = ("key_proj", "query_proj") if shares else ("pos_key_proj", "pos_query_proj")
    has_norm = "layer_norm" in getattr(config, "norm_rel_ebd", "none").lower()
    return DisentangledNames(
        embeddings="encoder.rel_embeddings",
        norm="encoder.LayerNorm" if has_norm else None,
        rows=_rows(config),
        key=f"attention.self.{key}" if "c2p" in config.pos_att_type else None,
        query=f"attention.self.{query}" if "p2c" in config.pos_att_type else None,
        shares_projections=shares,
    )


def _rows(config: Any) -> tuple[int, ...]:
    """Return the row of the embeddings for each distance `query - key`, in the order of the distances."""
    count = _count_buckets(config)
    span = count if count > 0 else _max_distance(config)
    # Packed inputs widen their rows to a multiple of this number.
    longest = config.max_position_embeddings + COLUMN_MULTIPLE - 1
    rows = np.clip(_buckets(np.arange(1 - longest, longest), config) + span, 0, 2 * span - 1)
    return tuple(rows.tolist())


def _max_distance(config: Any) -> int:
    return int(config.max_relative_positions if config.max_relative_positions > 0 else config.max_position_embeddings)


def _count_buckets(config: Any) -> int:
    """Return half of the number of buckets; 0 or less if each distance is a bucket."""
    return int(getattr(config, "position_buckets", -1))


def _buckets(distances: NDArray[np.int64], config: Any) -> NDArray[np.int64]:
    """Return the bucket of each distance `query - key`.

    Up to half of the buckets hold one distance each. The width of the others grows with the logarithm.
    """
    middle, most = _count_buckets(config) // 2, _max_distance(config)
    if _count_buckets(config) <= 0:
        return distances
    size = np.maximum(np.abs(distances), middle - 1).astype(np.float32)
    # In float32, as transformers does: the last bit decides which bucket a distance at a bound belongs to.
    ratio = np.log(size / np.float32(middle)) / np.log(np.float32((most - 1) / middle))
    logarithmic = np.sign(distances) * (np.ceil(ratio * np.float32(middle - 1)) + middle)
    buckets: NDArray[np.int64] = np.where(np.abs(distances) <= middle, distances, logarithmic).astype(np.int64)
    return buckets
