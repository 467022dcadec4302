"""Encoders in half precision: their weights as float16, for graphs that a GPU runs.

The pooler and the heads stay in float32: they are small, and what they give is compared, sorted and added up.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np

from encort.export.graph.description import Description
from encort.runtime.common.errors import CheckpointError


def to_float16(model: Description) -> Description:
    """The same model, its encoders' weights in float16.

    Raises:
        CheckpointError: A weight is too large for float16.
    """
    encoders = tuple(replace(_halved(encoder), pooler=encoder.pooler) for encoder in model.encoders)
    return replace(model, encoders=encoders)


def _halved(part: Any) -> Any:
    if isinstance(part, np.ndarray):
        with np.errstate(over="ignore"):
            half = part.astype(np.float16)
        if not np.isfinite(half).all():
            raise CheckpointError("a weight is beyond 65504, the largest number of float16; export cuda-fp32 instead")
        return half
    if isinstance(part, tuple):
        return tuple(map(_halved, part))
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{field.name: _halved(getattr(part, field.name)) for field in fields(part)})
    return part
