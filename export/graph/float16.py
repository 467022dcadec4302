"""Convert an encoder's weights to half precision, for graphs that a GPU runs.

The pooler and the heads stay in float32. They are small, and callers compare, sort and sum their results.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from encort.export.graph.description import Description
from encort.runtime.common.errors import CheckpointError


def to_float16(model: Description) -> Description:
    """Return the model with the weights of its encoders in float16.

    Raises:
        CheckpointError: A weight is too large for float16.
    """
    encoders = tuple(replace(_convert(encoder), pooler=encoder.pooler) for encoder in model.encoders)
    return replace(model, encoders=encoders)


def _convert(part: Any) -> Any:
    """Return a copy of a dataclass, tuple or array with every array in float16."""
    if isinstance(part, np.ndarray):
        with np.errstate(over="ignore"):
            half = part.astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError("a weight is beyond 65504, the largest number of float16; export cuda-fp32 instead")
        return half
    if isinstance(part, tuple):
        return tuple(map(_convert, part))
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{field.name: _convert(getattr(part, field.name)) for field in fields(part)})
    return part
