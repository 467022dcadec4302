"""Quantized layers are integer arithmetic, and the chosen settings lose little."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from encort.export.graph.description import Linear
from encort.export.int8.quantization import STRENGTHS, Activations, QuantizedGroup, quantize

COLUMNS = (5, 3)
"""Widths of two layers that read the same tensor of seven channels."""


def seen_in(sample: np.ndarray) -> Activations:
    return Activations(low=sample.min(axis=0), high=sample.max(axis=0), sample=sample)


def linears(weight: np.ndarray, columns: Sequence[int] = COLUMNS) -> list[Linear]:
    random, parts = np.random.default_rng(3), np.split(weight, np.cumsum(columns)[:-1], axis=1)
    biases = [random.normal(size=width).astype(np.float32) for width in columns]
    return [
        Linear(name=f"layer {number}", weight=part, bias=bias)
        for number, (part, bias) in enumerate(zip(parts, biases, strict=True))
    ]


@pytest.fixture(scope="module")
def weight() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(7, sum(COLUMNS))).astype(np.float32)


@pytest.fixture(scope="module")
def sample() -> np.ndarray:
    """Rows whose mean is not zero, with two channels far larger than the rest."""
    rows = np.random.default_rng(2).normal(0.3, 1.0, size=(200, 7))
    return (rows * [1, 1, 60, 1, 1, 25, 1]).astype(np.float32)


def scaled_weight(group: QuantizedGroup) -> np.ndarray:
    return np.concatenate([layer.weight * layer.scales for layer in group.layers], axis=1)


@pytest.mark.parametrize("weight_bits", [7, 8])
@pytest.mark.parametrize("strengths", [(0.0,), (0.75,)])
def test_products_equal_integer_products(
    weight: np.ndarray, sample: np.ndarray, strengths: Sequence[float], weight_bits: int
) -> None:
    group = quantize(linears(weight), seen_in(sample), weight_bits=weight_bits, strengths=strengths)
    # Values of three times the observed range, so that some saturate.
    x = 3 * sample
    divisor = np.ones(7, np.float32) if group.divisor is None else group.divisor
    steps = np.rint(x / divisor / np.float32(group.scale)).astype(np.int32) + group.zero_point
    centered = np.clip(steps, 0, 255).astype(np.int32) - group.zero_point
    assert (steps != np.clip(steps, 0, 255)).any()
    expected = [
        (centered @ layer.weight.astype(np.int32)) * np.float64(group.scale) * layer.scales for layer in group.layers
    ]
    np.testing.assert_allclose(group.products(x), np.concatenate(expected, axis=1), rtol=1e-5, atol=1e-4)
    assert {layer.weight.dtype for layer in group.layers} == {np.dtype(np.int8)}


@pytest.mark.parametrize("strength", STRENGTHS)
def test_smoothing_does_not_change_the_product(weight: np.ndarray, sample: np.ndarray, strength: float) -> None:
    group = quantize(linears(weight), seen_in(sample), weight_bits=8, strengths=(strength,))
    divisor = np.ones(7, np.float32) if group.divisor is None else group.divisor
    assert (group.divisor is None) == (strength == 0.0)
    half_steps = np.concatenate([layer.scales for layer in group.layers]) / 2
    error = np.abs(scaled_weight(group) - weight * divisor[:, None])
    assert (error <= 1.001 * half_steps).all()
    loss = np.square(group.products(sample) - sample @ weight).mean() / np.square(sample @ weight).mean()
    assert loss < 1e-3
    np.testing.assert_allclose(group.error, loss, rtol=1e-3)


def test_smoothing_helps_if_some_channels_are_far_larger(weight: np.ndarray, sample: np.ndarray) -> None:
    # The weights of the large channels are small, as in a transformer.
    quiet = weight * np.array([1, 1, 0.01, 1, 1, 0.01, 1], np.float32)[:, None]
    naive = quantize(linears(quiet), seen_in(sample), weight_bits=8, strengths=(0.0,))
    smooth = quantize(linears(quiet), seen_in(sample), weight_bits=8)
    assert smooth.error < naive.error / 10
    assert smooth.divisor[2] > 10 * smooth.divisor[0]


def test_the_best_strength_is_chosen(weight: np.ndarray, sample: np.ndarray) -> None:
    alone = [
        quantize(linears(weight), seen_in(sample), weight_bits=8, strengths=(strength,)).error for strength in STRENGTHS
    ]
    assert quantize(linears(weight), seen_in(sample), weight_bits=8).error == min(alone)
    assert len(set(alone)) == len(alone)


@pytest.mark.parametrize("strengths", [(0.0,), STRENGTHS])
def test_the_bias_corrects_the_mean_error(weight: np.ndarray, sample: np.ndarray, strengths: Sequence[float]) -> None:
    layers = linears(weight)
    group = quantize(layers, seen_in(sample), weight_bits=7, strengths=strengths)
    products = np.split(group.products(sample), [COLUMNS[0]], axis=1)
    for layer, product, full in zip(group.layers, products, layers, strict=True):
        error = product + layer.bias - (sample @ full.weight + full.bias)
        np.testing.assert_allclose(error.mean(axis=0), 0, atol=1e-4)
        assert np.abs(layer.bias - full.bias).max() > 1e-3
        assert (layer.name, layer.bias.dtype) == (full.name, np.float32)


@pytest.mark.parametrize(("weight_bits", "largest"), [(7, 63), (8, 127)])
def test_every_column_uses_the_full_range_of_its_bits(
    weight: np.ndarray, sample: np.ndarray, weight_bits: int, largest: int
) -> None:
    for layer in quantize(linears(weight), seen_in(sample), weight_bits=weight_bits).layers:
        assert np.abs(layer.weight.astype(int)).max(axis=0).tolist() == [largest] * layer.weight.shape[1]


@pytest.mark.parametrize("middle", [-1e3, -5, 0, 5, 1e3], ids="around {}".format)
def test_zero_stays_exactly_zero(weight: np.ndarray, sample: np.ndarray, middle: float) -> None:
    group = quantize(linears(weight), seen_in(sample + np.float32(middle)), weight_bits=8)
    assert 0 <= group.zero_point <= 255
    np.testing.assert_array_equal(group.products(np.zeros((1, 7), np.float32)), 0)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.5])
@pytest.mark.parametrize("channels", [[2], list(range(7))], ids=["one channel", "all channels"])
def test_a_constant_channel_gives_finite_products(
    weight: np.ndarray, sample: np.ndarray, value: float, channels: list[int]
) -> None:
    constant = sample.copy()
    constant[:, channels] = value
    group = quantize(linears(weight), seen_in(constant), weight_bits=8)
    x = np.concatenate([constant, sample])
    assert np.isfinite(group.products(x)).all()
    assert np.isfinite(scaled_weight(group)).all()
    assert group.error < 1e-3


@pytest.mark.parametrize("part", [np.s_[2, :], np.s_[:, 1], np.s_[:, :]], ids=["a row", "a column", "everything"])
def test_weights_of_zero_give_finite_products(weight: np.ndarray, sample: np.ndarray, part: Any) -> None:
    changed = weight.copy()
    changed[part] = 0
    group = quantize(linears(changed), seen_in(sample), weight_bits=8)
    products = group.products(sample)
    assert np.isfinite(products).all()
    np.testing.assert_allclose(products, sample @ changed, atol=0.02 * np.abs(sample @ weight).max())


numbers = st.floats(-1e4, 1e4, width=32)


@settings(max_examples=40, deadline=None)
@given(rows=arrays(np.float32, (6, 4), elements=numbers), weight=arrays(np.float32, (4, 3), elements=numbers))
def test_any_numbers_give_a_usable_group_no_worse_than_without_smoothing(rows: np.ndarray, weight: np.ndarray) -> None:
    group = quantize(linears(weight, (2, 1)), seen_in(rows), weight_bits=7)
    naive = quantize(linears(weight, (2, 1)), seen_in(rows), weight_bits=7, strengths=(0.0,))
    assert np.isfinite(group.products(rows)).all()
    assert all(np.isfinite(layer.bias).all() for layer in group.layers)
    assert 0 <= group.error <= naive.error
    assert 0 <= group.zero_point <= 255
    assert all(np.abs(layer.weight.astype(int)).max() <= 63 for layer in group.layers)
    assert not group.products(np.zeros((1, 4), np.float32)).any()
