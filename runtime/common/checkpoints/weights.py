"""The weights of a checkpoint: their names."""

import re
from collections.abc import Sequence

_BUFFERS = re.compile(r"(^|\.)(position_ids|token_type_ids|inv_freq)$")
_SHOWN = 4


def is_buffer(name: str) -> bool:
    """Return whether a saved weight is a buffer that every model makes itself; earlier transformers saved them."""
    return _BUFFERS.search(name) is not None


def shortened(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are, for a message."""
    shown = ", ".join(names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
