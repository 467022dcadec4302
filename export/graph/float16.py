"""Convert an encoder's weights to half precision, for graphs that a GPU runs.

The pooler and the heads stay in float32. They are small, and callers compare, sort and sum their results.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.export.graph.description import Description
from encort.runtime.common.errors import CheckpointError


def to_float16(model: Description) -> Description:
    """Return the model with the weights of its encoders in float16.

    Raises:
        CheckpointError: A weight is too large for float16.
    """
    encoders = tuple(replace(_convert(encoder, {}), pooler=encoder.pooler) for encoder in model.encoders)
    return replace(model, encoders=encoders)


def _convert(part: Any, converted: dict[int, Any]) -> Any:
    """Return a copy of a dataclass, tuple or array with every array in float16.

    Args:
        part: What to convert.
        converted: Copies that were made before, by the id of the original. A part that layers share stays shared.
    """
    if id(part) not in converted:
        converted[id(part)] = _copy(part, converted)
    return converted[id(part)]


def _copy(part: Any, converted: dict[int, Any]) -> Any:
    if isinstance(part, np.ndarray):
        return _half(part)
    if isinstance(part, tuple):
        return tuple(_convert(element, converted) for element in part)
    if is_dataclass(part) and not isinstance(part, type):
        return replace(part, **{field.name: _convert(getattr(part, field.name), converted) for field in fields(part)})
    return part


def _half(array: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise CheckpointError("a weight is beyond 65504, the largest number of float16; export cuda-fp32 instead")
    return half
