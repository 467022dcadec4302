"""Nodes that several layouts share."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import MICROSOFT, GraphBuilder
from encort.export.graph.description import AttentionHeads, Rotary

MASKED = float(np.finfo(np.float32).min)
"""Score of a masked token. The operator's default, -10000, can be above a real score."""
SMALLEST_MASK = -30_000.0
"""Number that masks of portable graphs add to scores: far below every score, and still finite in half precision.

The smallest float32 becomes infinite in half precision. OpenVINO in bfloat16 then computes zero times infinity, and its
result is wrong without being NaN.
"""


def cumulative_sum(builder: GraphBuilder, x: ir.Value, *, axis: int = 0, exclusive: bool = False) -> ir.Value:
    """Return the sum up to each element; an exclusive sum leaves the element itself out."""
    return builder.op("CumSum", x, builder.weight(f"axis_{axis}", np.array(axis, np.int64)), exclusive=int(exclusive))


def is_not(builder: GraphBuilder, ids: ir.Value, padding_id: int) -> ir.Value:
    """Return 1 for each id other than the padding token's, and 0 for that one, int64."""
    is_padding = builder.op("Equal", ids, builder.integers(padding_id))
    return builder.op("Cast", builder.op("Not", is_padding), to=ir.DataType.INT64)


def attention(
    builder: GraphBuilder,
    projections: Sequence[ir.Value],
    heads: AttentionHeads,
    *,
    mask: ir.Value | None,
    bias: ir.Value | None,
) -> ir.Value:
    """Return the attention's result, `(batch, sequence, hidden)`, for queries, keys and values of that shape."""
    return builder.op(
        "MultiHeadAttention",
        *projections,
        None,
        mask,
        bias,
        domain=MICROSOFT,
        num_heads=heads.count,
        mask_filter_value=MASKED,
    )


def rotary_tables(builder: GraphBuilder, rotary: Rotary) -> tuple[ir.Value, ir.Value]:
    """Return the cosines and the sines."""
    cosines, sines = f"{rotary.name}.cosines", f"{rotary.name}.sines"
    return builder.weight(cosines, rotary.cosines), builder.weight(sines, rotary.sines)


def rotate(builder: GraphBuilder, x: ir.Value, positions: ir.Value, rotary: Rotary) -> ir.Value:
    """Rotate queries or keys.

    Args:
        builder: Builder of the graph.
        x: `(batch, sequence, hidden)`.
        positions: Position of each token, `(batch, sequence)`, or that of the first column, `(1,)`; int64.
        rotary: Rotation.
    """
    return builder.op("RotaryEmbedding", x, positions, *rotary_tables(builder, rotary), domain=MICROSOFT)


def rotate_row(builder: GraphBuilder, x: ir.Value, positions: ir.Value, rotary: Rotary) -> ir.Value:
    """Rotate queries or keys `(tokens, hidden)` by the position of each token, `(tokens,)` int64."""
    # Each token is a row of its own, because the operator refuses rows that are longer than the tables.
    axis = builder.integers(1)
    rotated = rotate(builder, builder.op("Unsqueeze", x, axis), builder.op("Unsqueeze", positions, axis), rotary)
    return builder.op("Squeeze", rotated, axis)


def window_bias(builder: GraphBuilder, columns: ir.Value, window: int) -> ir.Value:
    """Return the bias that hides keys farther than the window, `(1, 1, sequence, sequence)` float32.

    Args:
        builder: Builder of the graph.
        columns: Numbers of the columns, `(sequence,)` int64.
        window: Largest distance of two tokens that see each other.
    """
    distances = builder.op("Abs", builder.op("Sub", columns, builder.op("Unsqueeze", columns, builder.integers(1))))
    is_far = builder.op("Cast", builder.op("Greater", distances, builder.integers(window)), to=ir.DataType.FLOAT)
    mask = builder.op("Mul", is_far, builder.weight("masked_score", np.array(SMALLEST_MASK, np.float32)))
    return builder.op("Unsqueeze", mask, builder.integers(0, 1))
