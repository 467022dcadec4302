"""Positions of tokens: where an architecture starts to count them."""

from collections.abc import Mapping
from typing import Any

from encort.runtime.common.errors import CheckpointError

_PADDING_POSITIONS: Mapping[str, int | None] = {
    "camembert": None,
    "data2vec-text": None,
    "esm": None,
    "ibert": None,
    "lilt": None,
    "longformer": None,
    "luke": None,
    "markuplm": None,
    "mpnet": 1,  # whatever its configuration says
    "roberta": None,
    "roberta-prelayernorm": None,
    "xlm-roberta": None,
    "xlm-roberta-xl": None,
    "xmod": None,
}
"""Architectures that count positions from the one after the padding token's id, as RoBERTa does, by `model_type`.

The value is the id of the padding token; None takes it from the configuration.
"""


def padding_position(config: Any) -> int | None:
    """Return the position of all padding tokens, after which those of the text are counted; None if every token counts.

    Args:
        config: Configuration of transformers.

    Raises:
        CheckpointError: The configuration has no padding token, and the architecture needs one.
    """
    if config.model_type not in _PADDING_POSITIONS:
        return None
    padding = _PADDING_POSITIONS[config.model_type]
    if padding is None:
        padding = config.pad_token_id
    if padding is None:
        raise CheckpointError(f"config.json has no pad_token_id, after which {config.model_type} counts positions")
    return int(padding)


def count_positions(config: Any) -> int | None:
    """Return the most tokens that have a position; None if the architecture has no limit of its own.

    Args:
        config: Configuration of transformers.

    Raises:
        CheckpointError: See `padding_position`.
    """
    positions = getattr(config, "max_position_embeddings", None)
    padding = padding_position(config)
    return int(positions) - (0 if padding is None else padding + 1) if positions else None
