"""Small runs on a CUDA device as captured graphs: a launch of a few microseconds in place of hundreds of kernels.

A captured graph has one shape and one place for each input and output. So there is a grid of shapes, and what is
smaller is filled up with texts of its own that nobody reads: attention is within a text, so they change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.cuda.packing import packed_specs, token_offset
from encort.runtime.engine.session import BoundRun, Session

ROWS = (2, 5, 17)
TOKENS = (24, 48, 96, 192, 384)
"""Of the shapes: at least one row and one token of each are the filling's."""
_LEAST = 8
"""Tokens a row; with fewer a shape is not worth its memory."""


@dataclass(frozen=True)
class Shape:
    """Rows and tokens of a run, filling included."""

    rows: int
    tokens: int

    def fits(self, rows: int, tokens: int) -> bool:
        """Whether that much and a filling fit; each row of the filling has a token."""
        return rows < self.rows and tokens + self.rows - rows <= self.tokens


def grid(longest: int) -> list[Shape]:
    """Shapes to capture, the smallest first.

    Args:
        longest: Most tokens of a text, which the filling must not pass either.
    """
    return sorted(
        (Shape(rows, tokens) for rows in ROWS for tokens in TOKENS if rows * _LEAST <= tokens <= longest),
        key=lambda shape: (shape.tokens, shape.rows),
    )


def filled(packed: Mapping[str, NDArray[Any]], shape: Shape) -> dict[str, NDArray[Any]]:
    """Inputs of a packed graph, filled up to a shape that they fit."""
    bounds, tokens = packed["cu_seqlens"], int(packed["cu_seqlens"][-1])
    missing = shape.rows + 1 - len(bounds)
    # All but the last row of the filling have one token.
    ends = np.append(tokens + np.arange(1, missing), shape.tokens)
    cu_seqlens = np.append(bounds, ends).astype(np.int32)
    counts = np.arange(shape.tokens) < np.diff(cu_seqlens)[:, None]
    of_tokens = {name: array for name, array in packed.items() if name not in ("cu_seqlens", "token_offset")}
    return {name: np.pad(array, (0, shape.tokens - tokens)) for name, array in of_tokens.items()} | {
        "token_offset": token_offset(counts),
        "cu_seqlens": cu_seqlens,
    }


class CapturedSession:
    """A packed session whose small runs are captured once `capture` was called; for one thread."""

    def __init__(self, session: Session, variant: Variant, *, longest: int, device: str, number: int) -> None:
        """Capture nothing: a thread that takes memory of any device meanwhile would spoil it.

        Args:
            session: Whose provider captures graphs.
            longest: Most tokens of a text.
            device: ONNX Runtime's name of the kind of device.
            number: Of the device.
        """
        self._session, self._variant, self._place = session, variant, (device, number)
        self._grid = grid(longest)
        self._graphs: dict[Shape, BoundRun] = {}

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        """See `Session.run_into`."""
        rows, tokens = len(inputs["cu_seqlens"]) - 1, len(inputs["input_ids"])
        shape = next((shape for shape in self._graphs if shape.fits(rows, tokens)), None)
        if shape is None:
            self._session.run_into(outputs, inputs)
            return
        found = self._graphs[shape].run(list(outputs), filled(inputs, shape))
        for array, with_filling in zip(outputs.values(), found, strict=True):
            array[...] = with_filling[: len(array)]

    def capture(self) -> None:
        """Capture all graphs, while no other thread of the process uses a device."""
        nothing = dict.fromkeys(self._variant.inputs, np.zeros(1, np.int64))
        one_token = nothing | {"cu_seqlens": np.array([0, 1], np.int32)}
        for shape in self._grid:
            if shape not in self._graphs:
                graph = self._bound(shape, number=len(self._graphs) + 1)
                graph.run(list(self._variant.outputs), filled(one_token, shape))
                self._graphs[shape] = graph

    def _bound(self, shape: Shape, *, number: int) -> BoundRun:
        inputs, outputs = packed_specs(self._variant, rows=shape.rows, tokens=shape.tokens, sequence=shape.tokens)
        return self._session.bound(inputs, outputs, place=self._place, graph=number)
