"""The operator of encort-kernels against PyTorch in float64, over shapes, lengths, formats and instruction sets."""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import (
    Attention,
    AttentionHeads,
    DistanceBias,
    FeedForward,
    Layer,
    LayerNorm,
    Linear,
    NormPlacement,
)
from encort.export.int8.native import KERNELS_DOMAIN, NativeLayerWriter, PackedLinear, pack
from encort.export.int8.quantization import Activations, QuantizedGroup, quantize
from encort.runtime.bundle.kernels import kernels_library
from encort.runtime.common.arrays import FloatArray

pytest.importorskip("encort_kernels")

ACTIVATIONS = {
    "gelu": torch.nn.functional.gelu,
    "gelu_new": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.nn.functional.relu,
}
SHAPES = [(32, 2, 48), (64, 2, 96), (40, 5, 72), (128, 2, 256), (256, 2, 80), (36, 3, 50)]
"""Hidden size, heads and intermediate size: heads of 16, 32, 8, 64, 128 and 12."""
LENGTHS = [[1], [2, 17, 1, 5], [40, 300], [16, 16, 15]]
SETS = ["amx", "avx512", "avx_vnni", "reference"]


def random_layer(shape: tuple[int, int, int], *, activation: str = "gelu", bias_length: int | None = None) -> Layer:
    hidden, heads, inner = shape
    generator = np.random.default_rng(hidden)

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        weight = generator.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        return Linear(name=name, weight=weight.astype(np.float32), bias=normal(outputs))

    def normal(count: int) -> FloatArray:
        return generator.standard_normal(count).astype(np.float32) * np.float32(0.3)

    def norm(name: str) -> LayerNorm:
        return LayerNorm(name=name, weight=1 + normal(hidden), bias=normal(hidden), epsilon=1e-5)

    table = generator.standard_normal((2 * (bias_length or 1) - 1, heads)).astype(np.float32)
    return Layer(
        attention=Attention(
            query=linear("query", hidden, hidden),
            key=linear("key", hidden, hidden),
            value=linear("value", hidden, hidden),
            output=linear("attention_output", hidden, hidden),
            heads=AttentionHeads(heads, hidden // heads, heads),
            positions=None if bias_length is None else DistanceBias(name="distances", table=table),
            window=None,
        ),
        attention_norm=norm("attention_norm"),
        feed_forward=FeedForward(
            intermediate=linear("intermediate", hidden, inner),
            gate=None,
            output=linear("output", inner, hidden),
            activation=activation,
        ),
        output_norm=norm("output_norm"),
        placement=NormPlacement.POST,
    )


Products = Callable[[Sequence[Linear], FloatArray], NDArray[np.floating]]


def exact_products(linears: Sequence[Linear], x: FloatArray) -> NDArray[np.floating]:
    """Return the results of layers that read the same `x`, side by side."""
    return np.concatenate([x @ linear.weight.astype(np.float64) + linear.bias for linear in linears], axis=1)


def expected(layer: Layer, x: FloatArray, products: Products = exact_products) -> NDArray[np.float64]:
    """Return the result of one text, `(tokens, hidden)`, in float64."""
    attention, inner = layer.attention, layer.feed_forward
    hidden, heads, size = torch.from_numpy(x).double(), attention.heads.count, attention.heads.size

    def product(values: torch.Tensor, *linears: Linear) -> torch.Tensor:
        return torch.from_numpy(products(linears, values.numpy())).double()

    def norm(norm: object, values: torch.Tensor) -> torch.Tensor:
        assert isinstance(norm, LayerNorm)
        assert norm.bias is not None
        weight, bias = torch.from_numpy(norm.weight).double(), torch.from_numpy(norm.bias).double()
        return torch.nn.functional.layer_norm(values, weight.shape, weight, bias, norm.epsilon)

    query, key, value = (
        values.unflatten(1, (heads, size)).transpose(0, 1)
        for values in product(hidden, attention.query, attention.key, attention.value).chunk(3, dim=1)
    )
    bias = None
    if isinstance(attention.positions, DistanceBias):
        count = len(x)
        distances = np.arange(count)[None] - np.arange(count)[:, None] + (len(attention.positions.table) + 1) // 2 - 1
        bias = torch.from_numpy(attention.positions.table.T[:, distances]).double()
    context = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    context = context.transpose(0, 1).flatten(1)
    hidden = norm(layer.attention_norm, hidden + product(context, attention.output))
    feed = product(ACTIVATIONS[inner.activation](product(hidden, inner.intermediate)), inner.output)
    return norm(layer.output_norm, hidden + feed).numpy()


def open_layer(
    layer: Layer, folder: Path, groups: Mapping[str, QuantizedGroup] | None = None
) -> onnxruntime.InferenceSession:
    builder = GraphBuilder("layer")
    builder.use(KERNELS_DOMAIN)
    hidden = layer.attention.query.width
    x = builder.input("x", ir.DataType.FLOAT, ("tokens", "hidden"))
    bounds = builder.input("cu_seqlens", ir.DataType.INT32, ("bounds",))
    builder.output(NativeLayerWriter(builder, bounds, groups or {}).layer(layer, x), "y", ("tokens", hidden))
    ir.save(builder.model(), folder / "layer.onnx")
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(kernels_library()))
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(folder / "layer.onnx", options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, texts: Sequence[FloatArray]) -> list[FloatArray]:
    bounds = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    (result,) = session.run(None, {"x": np.concatenate(texts), "cu_seqlens": bounds})
    return np.split(result, bounds[1:-1])


def random_texts(lengths: Sequence[int], hidden: int) -> list[FloatArray]:
    generator = np.random.default_rng(len(lengths))
    return [generator.standard_normal((length, hidden)).astype(np.float32) for length in lengths]


@pytest.fixture(autouse=True)
def any_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a processor without a fast instruction set run the plain one."""
    if not chosen_set():
        monkeypatch.setenv("ENCORT_KERNELS_ISA", "reference")


def chosen_set() -> str:
    name = ctypes.CDLL(str(kernels_library())).encort_kernels_instruction_set
    name.restype = ctypes.c_char_p
    return str(name().decode())


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ENCORT_KERNELS_ISA", request.param)
    if not chosen_set():
        pytest.skip(f"this processor lacks {request.param}")
    return str(request.param)


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bf16_layer_equals_pytorch(shape: tuple[int, int, int], tmp_path: Path) -> None:
    layer = random_layer(shape)
    session = open_layer(layer, tmp_path)
    for lengths in LENGTHS:
        texts = random_texts(lengths, shape[0])
        for text, result in zip(texts, run(session, texts), strict=True):
            # A value of bf16 is rounded to 8 bits; the layer's outputs have a standard deviation of about one.
            assert np.abs(result - expected(layer, text)).max() < 0.06
            assert np.abs(result - expected(layer, text)).mean() < 0.008


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_int8_layer_equals_the_simulation(activation: str, tmp_path: Path) -> None:
    layer = random_layer((40, 5, 72), activation=activation)
    texts = random_texts([30, 3, 9], 40)
    groups = _all_quantized(layer, texts)
    for text, result in zip(texts, run(open_layer(layer, tmp_path, groups), texts), strict=True):
        # Values that bf16 attention moves over the border of a step of int8 differ by that step.
        assert np.abs(result - expected(layer, text, _simulation(groups))).mean() < 0.01


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("is_int8", [False, True], ids=["bf16", "int8"])
def test_random_shapes_equal_pytorch_and_do_not_depend_on_other_texts(is_int8: bool, tmp_path: Path) -> None:
    generator = np.random.default_rng(20)
    for _ in range(10):
        heads, size, inner = (int(generator.integers(*bounds)) for bounds in [(1, 5), (1, 66), (1, 300)])
        layer = random_layer((heads * 2 * size, heads, inner))
        texts = random_texts(generator.integers(1, 70, size=4).tolist(), heads * 2 * size)
        groups = _all_quantized(layer, texts) if is_int8 else {}
        session = open_layer(layer, tmp_path, groups)
        for text, result in zip(texts, run(session, texts), strict=True):
            assert np.abs(result - expected(layer, text, _simulation(groups))).mean() < 0.01, (heads, 2 * size, inner)
            np.testing.assert_array_equal(run(session, [text])[0], result)


@pytest.mark.usefixtures("instruction_set")
def test_a_text_has_the_same_result_alone_and_among_others(tmp_path: Path) -> None:
    layer = random_layer((128, 2, 256))
    texts = random_texts([7, 40, 1, 300, 16, 33], 128)
    session = open_layer(layer, tmp_path, {"query": _quantized(layer.linear_groups[0], texts)})
    together = run(session, texts)
    for text, result in zip(texts, together, strict=True):
        np.testing.assert_array_equal(run(session, [text])[0], result)


@pytest.mark.usefixtures("instruction_set")
def test_scores_have_the_bias_of_their_distance(tmp_path: Path) -> None:
    layer = random_layer((40, 5, 72), bias_length=20)
    texts = random_texts([20, 3], 40)
    for text, result in zip(texts, run(open_layer(layer, tmp_path), texts), strict=True):
        assert np.abs(result - expected(layer, text)).max() < 0.06
    with pytest.raises(Exception, match="a text is longer than distance_bias"):
        run(open_layer(layer, tmp_path), random_texts([21], 40))


def test_a_long_text_equals_pytorch(tmp_path: Path) -> None:
    layer = random_layer((32, 1, 48))
    (text,) = random_texts([1024 if chosen_set() == "reference" else 8192], 32)
    (result,) = run(open_layer(layer, tmp_path), [text])
    picked = expected(layer, text)
    assert np.abs(result - picked).max() < 0.06


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ([0, 3], "begin with 0 or end"),
        ([1, 4], "begin with 0 or end"),
        ([0, 2, 2, 4], "has no tokens"),
        ([], "is empty"),
    ],
)
def test_wrong_bounds_are_refused(bounds: list[int], message: str, tmp_path: Path) -> None:
    session = open_layer(random_layer((32, 2, 48)), tmp_path)
    feeds = {"x": np.zeros((4, 32), np.float32), "cu_seqlens": np.array(bounds, np.int32)}
    with pytest.raises(Exception, match=message):
        session.run(None, feeds)


def test_packed_weights_have_columns_in_tiles() -> None:
    weight = np.arange(3 * 20, dtype=np.int8).reshape(3, 20)
    packed = pack(weight, group=4)
    assert packed.shape == (2, 1, 16, 4)
    assert packed[1, 0, 3].tolist() == [19, 39, 59, 0]


def test_zero_point_and_smoothing_are_part_of_scale_and_bias() -> None:
    layer = random_layer((40, 5, 72))
    (text,) = random_texts([50], 40)
    group = _quantized(layer.linear_groups[1], [text])
    packed = PackedLinear.from_quantized(group, np.ones(40, np.float32))
    steps = np.clip(np.rint(text * packed.multiplier[:40] + packed.zero_point), 0, 255)
    weight = group.layers[0].weight.astype(np.float64)
    result = steps @ weight * packed.scale[:40] + packed.bias[:40]
    np.testing.assert_allclose(result, group.products(text) + group.layers[0].bias, atol=2e-3)


def _all_quantized(layer: Layer, texts: Sequence[FloatArray]) -> dict[str, QuantizedGroup]:
    """Quantize all products of a layer for what they read of these texts, by the name of their first layer."""
    seen: dict[str, list[FloatArray]] = {}

    def products(linears: Sequence[Linear], x: FloatArray) -> NDArray[np.floating]:
        seen.setdefault(linears[0].name, []).append(x.astype(np.float32))
        return exact_products(linears, x)

    for text in texts:
        expected(layer, text, products)
    return {linears[0].name: _quantized(linears, seen[linears[0].name]) for linears in layer.linear_groups}


def _simulation(groups: Mapping[str, QuantizedGroup]) -> Products:
    def products(linears: Sequence[Linear], x: FloatArray) -> NDArray[np.floating]:
        if linears[0].name not in groups:
            return exact_products(linears, x)
        group = groups[linears[0].name]
        return group.products(x.astype(np.float32)) + np.concatenate([layer.bias for layer in group.layers])

    return products


def _quantized(linears: Sequence[Linear], texts: Sequence[FloatArray]) -> QuantizedGroup:
    rows = np.concatenate(texts)
    seen = Activations(low=rows.min(axis=0), high=rows.max(axis=0), sample=rows)
    return quantize(linears, seen, weight_bits=8)
