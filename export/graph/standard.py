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
    return builder.op("Reshape", tokens, builder.integers(0, 0, heads.count * heads.size))


def _number(builder: GraphBuilder, number: float) -> ir.Value:
    """Return a constant float32 without axes."""
    return builder.weight(f"number_{number:.9g}", np.array(number, np.float32))
