"""Native layers: one node of encort-kernels per transformer layer, in int8 and bf16, on packed tokens.

The weights are packed here in the order in which the processor reads them, so that loading only maps the file. The
layouts are those of `kernels/src/layer.h`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import DistanceBias, Encoder, Layer, LayerNorm, Linear, Norm, NormPlacement
from encort.export.graph.layouts import AttentionLayout
from encort.export.int8.quantization import QuantizedGroup
from encort.runtime.common.arrays import FloatArray
from encort.runtime.common.errors import CheckpointError

KERNELS_DOMAIN = "encort"
"""Domain of the operators of encort-kernels."""
LANES = 16
"""Columns of one tile of packed weights."""

_ACTIVATIONS = {"gelu": 0, "gelu_new": 1, "gelu_fast": 1, "gelu_pytorch_tanh": 1, "relu": 2}
_ROLES = ("qkv", "attention_output", "intermediate", "output")


@dataclass(frozen=True, eq=False, kw_only=True)
class PackedLinear:
    """Linear layers that read the same tensor, as one packed product, `(x @ weight) * scale + bias`.

    Attributes:
        inputs: Width of the input.
        outputs: Width of all layers together.
        weight: `(outputs / 16, inputs / n, 16, n)`, padded with zeros: int8 with `n` = 4, or bfloat16 with `n` = 2.
        scale: Scale of each column, `(outputs,)` padded to a multiple of 16.
        bias: Bias of each column, padded like `scale`.
        multiplier: The product reads `x * multiplier + zero_point` as bytes, `(inputs,)` padded to a multiple of 16;
            empty for bfloat16.
        zero_point: See `multiplier`.
    """

    inputs: int
    outputs: int
    weight: NDArray[np.generic]
    scale: FloatArray
    bias: FloatArray
    multiplier: FloatArray
    zero_point: float

    @classmethod
    def from_float(cls, layers: Sequence[Linear], column_scale: FloatArray) -> "PackedLinear":
        """Round weights to bfloat16. Each column of the result is multiplied by its `column_scale`."""
        weight = np.concatenate([layer.weight for layer in layers], axis=1)
        bias = np.concatenate([_bias(layer) for layer in layers])
        return cls(
            inputs=weight.shape[0],
            outputs=weight.shape[1],
            weight=pack(weight.astype(ir.DataType.BFLOAT16.numpy()), group=2),
            scale=_padded(column_scale),
            bias=_padded(bias * column_scale),
            multiplier=np.zeros(0, np.float32),
            zero_point=0.0,
        )

    @classmethod
    def from_quantized(cls, group: QuantizedGroup, column_scale: FloatArray) -> "PackedLinear":
        """Pack int8 weights. Smoothing, scales and zero point become part of `multiplier`, `scale` and `bias`."""
        weight = np.concatenate([layer.weight for layer in group.layers], axis=1)
        scale = np.concatenate([layer.scales for layer in group.layers]) * np.float32(group.scale) * column_scale
        bias = np.concatenate([layer.bias for layer in group.layers]) * column_scale
        zero_part = weight.sum(axis=0, dtype=np.int64) * group.zero_point * scale
        divisor = np.ones(weight.shape[0], np.float32) if group.divisor is None else group.divisor
        return cls(
            inputs=weight.shape[0],
            outputs=weight.shape[1],
            weight=pack(weight, group=4),
            scale=_padded(scale),
            bias=_padded((bias - zero_part).astype(np.float32)),
            multiplier=_padded((1 / (divisor * group.scale)).astype(np.float32)),
            zero_point=float(group.zero_point),
        )


def pack(weight: NDArray[np.generic], *, group: int) -> NDArray[np.generic]:
    """Return a weight `(in, out)` as `(out / 16, in / group, 16, group)`, padded with zeros.

    >>> pack(np.arange(4, dtype=np.int8).reshape(2, 2), group=4)[0, 0, :2].tolist()
    [[0, 2, 0, 0], [1, 3, 0, 0]]
    """
    rows, columns = weight.shape
    padded = np.pad(weight, ((0, -rows % group), (0, -columns % LANES)))
    tiles = padded.reshape(len(padded) // group, group, -1, LANES)
    return np.ascontiguousarray(tiles.transpose(2, 0, 3, 1))


@dataclass(frozen=True, eq=False)
class NativeLayerWriter:
    """Writes each layer as one node.

    Attributes:
        builder: Builder of the graph.
        bounds: Index of each text's first token, and at last the number of tokens, `(batch + 1,)` int32.
        groups: Quantized groups by the name of their first layer; all other layers are computed in bfloat16.
    """

    builder: GraphBuilder
    bounds: ir.Value
    groups: Mapping[str, QuantizedGroup]

    def layer(self, layer: Layer, hidden: ir.Value) -> ir.Value:
        """Write a layer, from hidden states without padding, `(tokens, hidden)`.

        Raises:
            CheckpointError: The operators cannot compute such a layer.
        """
        check_native(layer)
        packed = dict(zip(_ROLES, self._pack(layer), strict=True))
        name = layer.attention.query.name
        inputs = [value for role, linear in packed.items() for value in self._weights(f"{name}.{role}", linear)]
        inputs += [value for norm in (layer.attention_norm, layer.output_norm) for value in self._norm(norm)]
        if isinstance(layer.attention.positions, DistanceBias):
            inputs.append(self._distance_bias(layer.attention.positions))
        attributes: dict[str, int | float] = {
            "heads": layer.attention.heads.count,
            "activation": _ACTIVATIONS[layer.feed_forward.activation],
            "epsilon": float(layer.output_norm.epsilon),
        }
        for role, linear in packed.items():
            attributes |= {f"{role}_inputs": linear.inputs, f"{role}_outputs": linear.outputs}
            attributes[f"{role}_zero_point"] = linear.zero_point
        return self.builder.op("EncoderLayer", hidden, self.bounds, *inputs, domain=KERNELS_DOMAIN, **attributes)

    def _pack(self, layer: Layer) -> Iterator[PackedLinear]:
        """Yield the four products. The queries are scaled in the first one, as attention needs them."""
        for linears in layer.linear_groups:
            column_scale = np.ones(sum(linear.width for linear in linears), np.float32)
            if linears[0] is layer.attention.query:
                column_scale[: linears[0].width] = layer.attention.heads.size**-0.5
            group = self.groups.get(linears[0].name)
            if group is None:
                yield PackedLinear.from_float(linears, column_scale)
            else:
                yield PackedLinear.from_quantized(group, column_scale)

    def _weights(self, name: str, linear: PackedLinear) -> list[ir.Value]:
        arrays = {"weight": linear.weight, "scale": linear.scale, "bias": linear.bias, "multiplier": linear.multiplier}
        return [self.builder.weight(f"{name}.native_{part}", array) for part, array in arrays.items()]

    def _norm(self, norm: Norm | None) -> list[ir.Value]:
        assert isinstance(norm, LayerNorm)
        bias = np.zeros_like(norm.weight) if norm.bias is None else norm.bias
        arrays = {"weight": norm.weight, "bias": bias}
        return [self.builder.weight(f"{norm.name}.native_{part}", _padded(array)) for part, array in arrays.items()]

    def _distance_bias(self, bias: DistanceBias) -> ir.Value:
        return self.builder.weight(f"{bias.name}.native", np.ascontiguousarray(bias.table.T))


def native_layers(
    builder: GraphBuilder, _: Encoder, layout: AttentionLayout, *, groups: Mapping[str, QuantizedGroup]
) -> NativeLayerWriter:
    """Return the writer of native layers for a layout that computes layers without padding, and has a mask."""
    builder.use(KERNELS_DOMAIN)
    return NativeLayerWriter(builder, _bounds(builder, layout), groups)


def check_native(layer: Layer) -> None:
    """Refuse a layer that the operators cannot compute.

    Raises:
        CheckpointError: The message says what is different, and which variants there are.
    """
    attention, inner = layer.attention, layer.feed_forward
    problems = {
        "its norms are not after each residual sum": layer.placement is not NormPlacement.POST,
        "it has another norm than LayerNorm": not (
            isinstance(layer.attention_norm, LayerNorm) and isinstance(layer.output_norm, LayerNorm)
        ),
        "its norms have different epsilons": getattr(layer.attention_norm, "epsilon", None)
        != getattr(layer.output_norm, "epsilon", None),
        "heads share keys": attention.heads.groups != attention.heads.count,
        "its heads have an odd size": attention.heads.size % 2 == 1,
        "its attention has a window": attention.window is not None,
        "its positions are rotations or disentangled": not isinstance(attention.positions, DistanceBias | None),
        "its feed-forward has a gate": inner.gate is not None,
        f"its activation is {inner.activation!r}": inner.activation not in _ACTIVATIONS,
    }
    found = [problem for problem, is_found in problems.items() if is_found]
    if found:
        raise CheckpointError(f"no native variant can be made: {', '.join(found)}; make the variants fp32 and int8")


def _bounds(builder: GraphBuilder, layout: AttentionLayout) -> ir.Value:
    """Return the index of each text's first token, and at last the number of tokens, `(batch + 1,)` int32."""
    assert layout.mask is not None
    lengths = builder.op("ReduceSum", layout.mask, builder.integers(1), keepdims=0)
    ends = builder.op("CumSum", lengths, builder.weight("axis_0", np.array(0, np.int64)))
    return builder.op("Concat", builder.weight("first_bound", np.zeros(1, np.int32)), _int32(builder, ends), axis=0)


def _int32(builder: GraphBuilder, x: ir.Value) -> ir.Value:
    return builder.op("Cast", x, to=ir.DataType.INT32)


def _bias(layer: Linear) -> FloatArray:
    return np.zeros(layer.width, np.float32) if layer.bias is None else layer.bias


def _padded(values: FloatArray) -> FloatArray:
    result: FloatArray = np.pad(values.astype(np.float32), (0, -len(values) % LANES))
    return result
