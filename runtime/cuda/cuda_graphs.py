"""CUDA graphs for small runs: one launch of a few microseconds in place of hundreds of kernel launches.

A captured graph has one shape, and its inputs and outputs have fixed addresses on the device. So a grid of shapes is
captured, and a run that is smaller than a shape is filled up with dummy texts, whose results are dropped. Attention
stays within a text, so the dummy texts do not change any other result.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import ROW_INPUTS, Variant
from encort.runtime.common.arrays import FloatArray
from encort.runtime.cuda.packing import packed_specs, token_offset
from encort.runtime.engine.session import BoundRun, Session

ROW_COUNTS = (2, 5, 17)
"""Rows of the captured shapes; at least one row is a dummy text."""
TOKEN_COUNTS = (24, 48, 96, 192, 384)
"""Tokens of the captured shapes; each dummy text has at least one."""
_MIN_TOKENS_PER_ROW = 8
"""A shape with fewer tokens per row is not worth its memory."""


@dataclass(frozen=True)
class Shape:
    """Rows and tokens of a captured run, dummy texts included."""

    rows: int
    tokens: int

    def fits(self, rows: int, tokens: int) -> bool:
        """Return whether a run of this size fits, with at least one dummy text and one token for each dummy text."""
        return rows < self.rows and tokens + self.rows - rows <= self.tokens


def capture_shapes(max_length: int) -> list[Shape]:
    """Return the shapes to capture, the smallest first.

    Args:
        max_length: Most tokens of a text; a dummy text must not be longer either.
    """
    return sorted(
        (
            Shape(rows, tokens)
            for rows in ROW_COUNTS
            for tokens in TOKEN_COUNTS
            if rows * _MIN_TOKENS_PER_ROW <= tokens <= max_length
        ),
        key=lambda shape: (shape.tokens, shape.rows),
    )


def fill_up(packed: Mapping[str, NDArray[Any]], shape: Shape) -> dict[str, NDArray[Any]]:
    """Return the inputs of a packed graph with dummy texts after them, so that they have exactly this shape.

    Args:
        packed: See `Packing.pack`; it must fit the shape.
    """
    bounds, tokens = packed["cu_seqlens"], int(packed["cu_seqlens"][-1])
    dummy_rows = shape.rows + 1 - len(bounds)
    # The last dummy text takes all tokens that are left; the others have one each.
    dummy_ends = np.append(tokens + np.arange(1, dummy_rows), shape.tokens)
    cu_seqlens = np.append(bounds, dummy_ends).astype(np.int32)
    mask = np.arange(shape.tokens) < np.diff(cu_seqlens)[:, None]
    sizes = dict.fromkeys(packed, shape.tokens) | dict.fromkeys(ROW_INPUTS, shape.rows)
    flat = {name: array for name, array in packed.items() if name not in ("cu_seqlens", "token_offset")}
    return {name: np.pad(array, (0, sizes[name] - len(array))) for name, array in flat.items()} | {
        "token_offset": token_offset(mask),
        "cu_seqlens": cu_seqlens,
    }


class CapturedSession:
    """A packed session that replays CUDA graphs for small runs, once `capture` was called. Use it from one thread."""

    def __init__(self, session: Session, variant: Variant, *, max_length: int, device: str, number: int) -> None:
        """Prepare without capturing: CUDA use in any other thread of the process would spoil a capture.

        Args:
            session: Its execution provider captures graphs.
            max_length: Most tokens of a text.
            device: ONNX Runtime's name for the kind of device.
            number: Number of the device.
        """
        self._session, self._variant, self._device = session, variant, (device, number)
        self._shapes = capture_shapes(max_length)
        self._graphs: dict[Shape, BoundRun] = {}

    def run_into(self, outputs: Mapping[str, FloatArray], inputs: Mapping[str, NDArray[Any]]) -> None:
        """Write the named outputs to the caller's arrays; see `Session.run_into`."""
        rows, tokens = len(inputs["cu_seqlens"]) - 1, len(inputs["input_ids"])
        shape = next((shape for shape in self._graphs if shape.fits(rows, tokens)), None)
        if shape is None:
            self._session.run_into(outputs, inputs)
            return
        results = self._graphs[shape].run(list(outputs), fill_up(inputs, shape))
        for array, result in zip(outputs.values(), results, strict=True):
            array[...] = result[: len(array)]

    def capture(self) -> None:
        """Capture all shapes. Call it while no other thread of the process uses a GPU."""
        one_token = dict.fromkeys(self._variant.inputs, np.zeros(1, np.int64)) | {
            "cu_seqlens": np.array([0, 1], np.int32)
        }
        for shape in self._shapes:
            if shape not in self._graphs:
                graph = self._bind(shape, graph_id=len(self._graphs) + 1)
                graph.run(list(self._variant.outputs), fill_up(one_token, shape))
                self._graphs[shape] = graph

    def _bind(self, shape: Shape, *, graph_id: int) -> BoundRun:
        inputs, outputs = packed_specs(self._variant, rows=shape.rows, tokens=shape.tokens, sequence=shape.tokens)
        return self._session.bound(inputs, outputs, device=self._device, graph=graph_id)
