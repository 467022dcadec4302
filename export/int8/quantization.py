"""Static int8 quantization of linear layers that read the same tensor.

    x ≈ scale · (u8 - zero point),   W ≈ s8 · column scale,   x @ W + b ≈ MatMulIntegerToFloat

The scales are static. Scales computed per batch would make a text's vector depend on its neighbours.

A few channels of a transformer's activations are far larger than the rest. Smoothing (SmoothQuant, Xiao et al. 2022)
moves part of their range into the weights: `(x / divisor) @ (divisor · W)` is the same product as `x @ W`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from encort.export.graph.description import Linear
from encort.runtime.common.arrays import FloatArray

Int8Array = NDArray[np.int8]

STRENGTHS = (0.0, 0.5, 0.65, 0.7, 0.75, 0.8, 0.85)
"""Strengths of smoothing: 0 leaves the range in the activations, 1 moves all of it. Each group takes the best one."""
SPANS = (1.0, 0.95)
"""Parts of the observed range that the 256 steps may span; values outside saturate. Each group takes the best one."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class Activations:
    """Values of one tensor during calibration.

    Attributes:
        low: Smallest value of each channel, `(in,)`.
        high: Largest value of each channel, `(in,)`.
        sample: Some rows of the tensor, `(tokens, in)`.
    """

    low: FloatArray
    high: FloatArray
    sample: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedLinear:
    """A quantized linear layer, `((u8 - zero point) @ weight) · input scale · scales + bias`.

    Attributes:
        name: Name of the layer.
        weight: `(in, out)` int8.
        scales: Scale of each column, `(out,)`.
        bias: `(out,)` float32, corrected by the mean error on the calibration texts.
        module: Name of the checkpoint's module that holds the layer.
        index: Number of the layer in this module, from 0.
    """

    name: str
    weight: Int8Array
    scales: FloatArray
    bias: FloatArray
    module: str
    index: int

    @property
    def dequantized(self) -> FloatArray:
        """Weight in float32, `(in, out)`, as the product sees it."""
        return self.weight * self.scales


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedGroup:
    """Quantized linear layers that read the same tensor. The tensor is quantized once for all of them.

    Attributes:
        divisor: Smoothing, `(in,)`: the input is divided by it before quantization. None stands for ones.
        scale: Scale of the input.
        zero_point: Zero point of the input, 0 to 255.
        layers: Layers of the group.
        error: Mean squared error of the products on the sample, relative to their mean square.
    """

    divisor: FloatArray | None
    scale: float
    zero_point: int
    layers: tuple[QuantizedLinear, ...]
    error: float

    @cached_property
    def weight(self) -> FloatArray:
        """Dequantized weights of all layers, concatenated, `(in, out)`."""
        return np.concatenate([layer.dequantized for layer in self.layers], axis=1)

    def products(self, x: FloatArray) -> FloatArray:
        """Return the products of all layers, `(tokens, out)`, concatenated and without bias, for `x` `(tokens, in)`."""
        steps = np.rint((x if self.divisor is None else x / self.divisor) / np.float32(self.scale)) + self.zero_point
        rounded = (np.clip(steps, 0, 255) - self.zero_point) * np.float32(self.scale)
        result: FloatArray = rounded.astype(np.float32) @ self.weight
        return result


def quantize(
    layers: Sequence[Linear], seen: Activations, *, weight_bits: int, strengths: Sequence[float] = STRENGTHS
) -> QuantizedGroup:
    """Quantize layers that read the same tensor, with the smoothing and the span that have the least error.

    Args:
        layers: Layers of the group.
        seen: Values of the tensor during calibration.
        weight_bits: 8, or 7 for processors that sum products of bytes in 16 bits and would overflow with 8.
        strengths: Strengths of smoothing to try.
    """
    weight = np.concatenate([layer.weight for layer in layers], axis=1)
    expected = seen.sample @ weight
    candidates = (
        _candidate(layers, seen, _divisor(seen, weight, strength), span, weight_bits)
        for strength in strengths
        for span in SPANS
    )
    best = min((_measured(candidate, seen.sample, expected) for candidate in candidates), key=lambda group: group.error)
    return _bias_corrected(best, seen.sample, expected)


def _divisor(seen: Activations, weight: FloatArray, strength: float) -> FloatArray | None:
    """Return `max|x|^strength / max|W|^(1 - strength)` for each channel, scaled to a geometric mean of 1."""
    if strength == 0.0:
        return None
    largest = np.maximum(np.maximum(np.abs(seen.low), np.abs(seen.high)), 1e-5)
    rows = np.maximum(np.abs(weight).max(axis=1), 1e-5)
    divisor = largest**strength / rows ** (1 - strength)
    scaled: FloatArray = (divisor / np.exp(np.log(divisor).mean())).astype(np.float32)
    return scaled


def _candidate(
    layers: Sequence[Linear], seen: Activations, divisor: FloatArray | None, span: float, weight_bits: int
) -> QuantizedGroup:
    unit = np.ones_like(seen.low) if divisor is None else divisor
    # The range includes zero, so that a zero stays exactly zero. Rectified activations hold many zeros.
    low = span * min(0.0, float((seen.low / unit).min()))
    high = span * max(0.0, float((seen.high / unit).max()))
    scale = max(high - low, _TINY) / 255
    return QuantizedGroup(
        divisor=divisor,
        scale=scale,
        zero_point=round(-low / scale),
        layers=tuple(_quantized(layer, unit, weight_bits) for layer in layers),
        error=float("inf"),
    )


def _quantized(layer: Linear, divisor: FloatArray, bits: int) -> QuantizedLinear:
    weight, largest = layer.weight * divisor[:, None], 2 ** (bits - 1) - 1
    scales = np.maximum(np.abs(weight).max(axis=0), _TINY) / largest
    return QuantizedLinear(
        name=layer.name,
        weight=np.rint(weight / scales).astype(np.int8),
        scales=scales.astype(np.float32),
        bias=np.zeros(layer.width, np.float32) if layer.bias is None else layer.bias,
        module=layer.module,
        index=0 if layer.part is None else layer.part.index,
    )


def _measured(group: QuantizedGroup, sample: FloatArray, expected: FloatArray) -> QuantizedGroup:
    """Return the group with its error on the sample."""
    error = np.square(group.products(sample) - expected).mean() / max(float(np.square(expected).mean()), _TINY)
    return replace(group, error=float(error))


def _bias_corrected(group: QuantizedGroup, sample: FloatArray, expected: FloatArray) -> QuantizedGroup:
    """Return the group with the mean error of its products added to the biases."""
    offset = (expected - group.products(sample)).mean(axis=0)
    parts = np.split(offset, np.cumsum([len(layer.bias) for layer in group.layers])[:-1])
    layers = tuple(
        replace(layer, bias=(layer.bias + part).astype(np.float32))
        for layer, part in zip(group.layers, parts, strict=True)
    )
    return replace(group, layers=layers)
