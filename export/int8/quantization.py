"""Static 8-bit quantization of linear layers that read one tensor.

    x ≈ scale · (u8 - zero point),   W ≈ s8 · column scale,   x @ W + b ≈ MatMulIntegerToFloat

Static, because scales found per batch make a text's vector depend on its neighbours. A few channels of a
transformer's activations are far larger than the rest; smoothing (Xiao et al. 2022, SmoothQuant) moves part of that
range into the weights: `x / divisor` and `divisor · W` give the same product.
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
"""How much of the range moves into the weights; each group of layers takes the best of these."""
SPANS = (1.0, 0.95)
"""Parts of the observed range that 8 bits may span; what lies outside saturates."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False, kw_only=True)
class Activations:
    """What calibration texts showed of one tensor.

    Attributes:
        low: Smallest value of each channel, `(in,)`.
        high: Largest value of each channel, `(in,)`.
        sample: Some of its rows, `(tokens, in)`.
    """

    low: FloatArray
    high: FloatArray
    sample: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedLinear:
    """`((u8 - zero point) @ weight) · input scale · scales + bias`.

    Attributes:
        weight: `(in, out)` int8.
        scales: `(out,)`, one a column.
        bias: `(out,)` float32, with the mean error of the calibration texts taken off.
    """

    name: str
    weight: Int8Array
    scales: FloatArray
    bias: FloatArray


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedGroup:
    """Linear layers that read the same tensor, which is quantized once for all of them.

    Attributes:
        divisor: Smoothing, `(in,)`: the input is divided by it before it is quantized. None for ones.
        scale: Of the input.
        zero_point: Of the input, 0 to 255.
        error: Mean squared error of the products, relative to their mean square, on the sample.
    """

    divisor: FloatArray | None
    scale: float
    zero_point: int
    layers: tuple[QuantizedLinear, ...]
    error: float

    @cached_property
    def weight(self) -> FloatArray:
        """Weights as the products see them, side by side, `(in, out)`."""
        return np.concatenate([layer.weight * layer.scales for layer in self.layers], axis=1)

    def products(self, x: FloatArray) -> FloatArray:
        """What the layers give for `x`, `(tokens, in)`, side by side and without bias."""
        steps = np.rint((x if self.divisor is None else x / self.divisor) / np.float32(self.scale)) + self.zero_point
        rounded = (np.clip(steps, 0, 255) - self.zero_point) * np.float32(self.scale)
        result: FloatArray = rounded.astype(np.float32) @ self.weight
        return result


def quantize(
    layers: Sequence[Linear], seen: Activations, *, weight_bits: int, strengths: Sequence[float] = STRENGTHS
) -> QuantizedGroup:
    """Quantize a group with the smoothing and the span that lose least on the sample.

    Args:
        weight_bits: 8, or 7 for processors that add products of bytes in 16 bits.
        strengths: Of smoothing, to choose from.
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
    """`max|x|^strength / max|W|^(1 - strength)` of each channel."""
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
    # Zero must be a step of its own, or every padding and every rectified value would be off.
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
        bias=layer.bias,
    )


def _measured(group: QuantizedGroup, sample: FloatArray, expected: FloatArray) -> QuantizedGroup:
    error = np.square(group.products(sample) - expected).mean() / max(float(np.square(expected).mean()), _TINY)
    return replace(group, error=float(error))


def _bias_corrected(group: QuantizedGroup, sample: FloatArray, expected: FloatArray) -> QuantizedGroup:
    offset = (expected - group.products(sample)).mean(axis=0)
    parts = np.split(offset, np.cumsum([len(layer.bias) for layer in group.layers])[:-1])
    layers = tuple(
        replace(layer, bias=(layer.bias + part).astype(np.float32))
        for layer, part in zip(group.layers, parts, strict=True)
    )
    return replace(group, layers=layers)
