"""Comparison of what two libraries return for the same call."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

TOLERANCE = 1e-5


def assert_same(found: Any, expected: Any, *, tolerance: float = TOLERANCE) -> None:
    """Compare types, dtypes, shapes and values; in lists and dicts, of every item."""
    assert type(found) is type(expected)
    if isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other, tolerance=tolerance)
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected)
        assert_same(list(found.values()), list(expected.values()), tolerance=tolerance)
    elif isinstance(expected, np.ndarray | np.generic | torch.Tensor):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if np.asarray(expected).size:
            difference = np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64))
            assert difference.max() <= tolerance
    elif isinstance(expected, float):
        assert abs(found - expected) <= tolerance
    else:
        assert found == expected
