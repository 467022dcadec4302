"""Write operators of ONNX Runtime's own domain from standard ONNX operators, for graphs that other runtimes load.

ONNX Runtime finds the nodes of `gelu` and `tanh_gelu` in this order, and runs them as one.
"""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import AttentionHeads


def gelu(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    """Write `x * (1 + erf(x / sqrt(2))) / 2`."""
    error = builder.op("Erf", builder.op("Div", x, _number(builder, math.sqrt(2))))
    product = builder.op("Mul", x, builder.op("Add", error, _number(builder, 1)))
    return builder.op("Mul", product, _number(builder, 0.5))


def tanh_gelu(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    """Write `x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3))) / 2`."""
    cubic = builder.op("Mul", builder.op("Pow", x, _number(builder, 3)), _number(builder, 0.044715))
    scaled = builder.op("Mul", builder.op("Add", x, cubic), _number(builder, math.sqrt(2 / math.pi)))
    factor = builder.op("Add", builder.op("Tanh", scaled), _number(builder, 1))
    return builder.op("Mul", builder.op("Mul", x, _number(builder, 0.5)), factor)


def silu(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    """Write `x * sigmoid(x)`."""
    return builder.op("Mul", x, builder.op("Sigmoid", x))


def rms_norm(builder: GraphBuilder, x: ir.Value, weight: ir.Value, epsilon: float) -> ir.Value:
    """Write `x / sqrt(mean(x ** 2) + epsilon) * weight` over the last axis."""
    mean = builder.op("ReduceMean", builder.op("Pow", x, _number(builder, 2)), builder.integers(-1), keepdims=1)
    root = builder.op("Sqrt", builder.op("Add", mean, _number(builder, epsilon)))
    return builder.op("Mul", builder.op("Div", x, root), weight)


def rotate(builder: GraphBuilder, x: ir.Value, cosines: ir.Value, sines: ir.Value, *, half: int) -> ir.Value:
    """Write the rotation of each head's pairs of values; the pairs are value `i` of both halves.

    Args:
        builder: Builder of the graph.
        x: Projected queries or keys, `(batch, sequence, hidden)`.
        cosines: `(sequence, half)`.
        sines: `(sequence, half)`.
        half: Half of a head's size.
    """
    halves = builder.op("Reshape", x, builder.integers(0, 0, -1, 2, half))
    first, second = (builder.op("Gather", halves, builder.weight(f"index_{i}", np.array(i)), axis=3) for i in (0, 1))
    cosines, sines = (builder.op("Unsqueeze", table, builder.integers(1)) for table in (cosines, sines))
    turned = (
        builder.op("Sub", builder.op("Mul", first, cosines), builder.op("Mul", second, sines)),
        builder.op("Add", builder.op("Mul", second, cosines), builder.op("Mul", first, sines)),
    )
    rotated = builder.op("Concat", *(builder.op("Unsqueeze", x, builder.integers(3)) for x in turned), axis=3)
    return builder.op("Reshape", rotated, builder.op("Shape", x))


def attention(
    builder: GraphBuilder,
    query: ir.Value,
    key: ir.Value,
    value: ir.Value,
    *,
    heads: AttentionHeads,
    biases: Sequence[ir.Value],
) -> ir.Value:
    """Write the attention of each token over all tokens of its row, `(batch, sequence, hidden)`.

    Args:
        builder: Builder of the graph.
        query: Projected queries, `(batch, sequence, hidden)`; keys and values have the same shape.
        key: Projected keys.
        value: Projected values.
        heads: Attention heads.
        biases: Added to the scores, in this order. Their shapes expand to `(batch, heads, sequence, sequence)`.
    """
    split = builder.integers(0, 0, heads.count, heads.size)
    queries, keys, values = (builder.op("Reshape", x, split) for x in (query, key, value))
    queries, values = (builder.op("Transpose", x, perm=[0, 2, 1, 3]) for x in (queries, values))
    scores = builder.op("MatMul", queries, builder.op("Transpose", keys, perm=[0, 2, 3, 1]))
    scores = builder.op("Mul", scores, _number(builder, 1 / math.sqrt(heads.size)))
    for bias in biases:
        scores = builder.op("Add", scores, bias)
    context = builder.op("MatMul", builder.op("Softmax", scores, axis=-1), values)
    tokens = builder.op("Transpose", context, perm=[0, 2, 1, 3])
    return builder.op("Reshape", tokens, builder.integers(0, 0, heads.width))


def _number(builder: GraphBuilder, number: float) -> ir.Value:
    """Return a constant float32 without axes."""
    return builder.weight(f"number_{number:.9g}", np.array(number, np.float32))
