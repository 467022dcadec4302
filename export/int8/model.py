"""The 8-bit encoder: which layers are quantized, and how their products stand in a graph."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from tqdm import tqdm

from encort.export.graph.builder import Graph
from encort.export.graph.description import Description, Encoder, Layer, Linear
from encort.export.graph.encoder import emit_float_linears
from encort.export.graph.heads import author
from encort.export.graph.layouts import MICROSOFT
from encort.export.int8.calibration import Calibration, cases, groups, observe, simulated
from encort.export.int8.quantization import STRENGTHS, QuantizedGroup, QuantizedLinear, quantize
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle, padded_case
from encort.runtime.bundle.manifest import LAST_HIDDEN_STATE, SENTENCE_EMBEDDING, Embedding, Layout
from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.verification.tolerance import cosines

log = logging.getLogger("encort")

MEAN_COSINE, MIN_COSINE = 0.998, 0.985
"""How near vectors must come to those of full precision."""
_BATCH = 16
_PROBES = 64
"""Texts that each group alone is tried on."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedModel:
    """A model with quantized layers.

    Attributes:
        description: The model in full precision.
        groups: Quantized layers that read one tensor, by the name of their first.
    """

    description: Description
    groups: Mapping[str, QuantizedGroup]

    def without(self, names: Collection[str]) -> "QuantizedModel":
        """The same, with these groups in full precision."""
        return replace(self, groups={name: group for name, group in self.groups.items() if name not in names})

    def author(self, layout: Layout, *, embedding: Embedding | None) -> ir.Model:
        """The graph."""
        folded = dict(self.groups)
        encoders = tuple(_folded(encoder, folded) for encoder in self.description.encoders)

        def linears(graph: Graph, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
            group = folded.get(layers[0].name)
            return emit_float_linears(graph, layers, x) if group is None else _products(graph, group, x)

        model = replace(self.description, encoders=encoders)
        return author(model, layout, embedding=embedding, linears=linears)


def fit_int8(
    trained: ExportSource, calibration: Calibration, *, weight_bits: int, progress: bool = False
) -> QuantizedModel:
    """Quantize a model as far as the budget of cosines allows."""
    model = quantize_model(trained, calibration.seen, weight_bits=weight_bits, progress=progress)
    return within_budget(model, trained.oracle, calibration.judged, progress=progress)


def quantize_model(
    trained: ExportSource,
    texts: TokenBatch,
    *,
    weight_bits: int,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = False,
) -> QuantizedModel:
    """Quantize every layer of the encoders.

    Args:
        texts: Calibration texts, of the lengths and kinds that will be served.
        weight_bits: 8, or 7 for processors without an exact product of bytes.
        strengths: Of smoothing, to choose from.
        progress: Show a bar on stderr.
    """
    assert trained.description is not None
    layers = groups(trained.description.encoders)
    seen = observe(trained.oracle, cases(texts), list(layers))
    bar = tqdm(layers.items(), desc="quantize", unit="tensor", disable=None if progress else True)
    quantized = {name: quantize(group, seen[name], weight_bits=weight_bits, strengths=strengths) for name, group in bar}
    return QuantizedModel(description=trained.description, groups=quantized)


def within_budget(
    model: QuantizedModel, oracle: Oracle, texts: TokenBatch, *, progress: bool = False
) -> QuantizedModel:
    """The model with as few of the most sensitive groups in full precision as the budget of cosines asks for.

    Args:
        texts: Others than those of the calibration.
        progress: Show a bar on stderr.
    """
    judged = _probes(texts, len(texts))
    expected = _vectors(oracle, judged)
    sensitive: list[str] = []
    excluded = 0
    while excluded < len(model.groups) and not _is_near(model.without(sensitive[:excluded]), oracle, judged, expected):
        if not sensitive:
            sensitive = by_sensitivity(model, oracle, texts, progress=progress)
        excluded += 1
    if excluded:
        log.warning("int8: %d of %d tensors stay in fp32, for the budget of cosines", excluded, len(model.groups))
    return model.without(sensitive[:excluded])


def _is_near(model: QuantizedModel, oracle: Oracle, judged: Sequence[Case], expected: FloatArray) -> bool:
    with simulated(oracle, model.groups):
        similar = cosines(_vectors(oracle, judged), expected)
    return bool(similar.mean() >= MEAN_COSINE and similar.min() >= MIN_COSINE)


def by_sensitivity(model: QuantizedModel, oracle: Oracle, texts: TokenBatch, *, progress: bool = False) -> list[str]:
    """Names of the groups; the one that alone changes the vectors of texts most comes first."""
    probes = _probes(texts, _PROBES)
    expected = _vectors(oracle, probes)
    losses = {}
    for name, group in tqdm(
        model.groups.items(), desc="sensitivity", unit="tensor", disable=None if progress else True
    ):
        with simulated(oracle, {name: group}):
            losses[name] = 1 - float(cosines(_vectors(oracle, probes), expected).mean())
    return sorted(losses, key=losses.__getitem__, reverse=True)


def _probes(texts: TokenBatch, count: int) -> list[Case]:
    """At most `count` of the texts, evenly from all, in padded batches of similar length."""
    picked = np.unique(np.linspace(0, len(texts) - 1, count).astype(np.int64))
    ordered = picked[np.argsort(texts.lengths[picked], kind="stable")]
    rows = [texts.rows(np.array([index])) for index in ordered]
    return [padded_case("probes", rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)]


def _vectors(oracle: Oracle, probes: Sequence[Case]) -> FloatArray:
    """What accuracy is judged by: sentence embeddings, or where a head reads every token, those of tokens."""
    rows = []
    for case in probes:
        outputs = oracle(case)
        if oracle.embedding is None:
            rows.append(outputs[oracle.heads[0].outputs[0]])
        elif oracle.is_tokenwise:
            hidden = outputs[LAST_HIDDEN_STATE]
            rows.append(hidden[case.mask == 1])
        else:
            rows.append(outputs[SENTENCE_EMBEDDING])
    return np.concatenate(rows)


def _folded(encoder: Encoder, quantized: dict[str, QuantizedGroup]) -> Encoder:
    """Move the smoothing of attention outputs into the values, of which they are weighted means."""
    return replace(encoder, layers=tuple(_folded_layer(layer, quantized) for layer in encoder.layers))


def _folded_layer(layer: Layer, quantized: dict[str, QuantizedGroup]) -> Layer:
    output = quantized.get(layer.attention_output.name)
    if output is None or output.divisor is None:
        return layer
    divisor = output.divisor
    quantized[layer.attention_output.name] = replace(output, divisor=None)
    if layer.query.name in quantized:
        inputs = quantized[layer.query.name]
        query, key, value = inputs.layers
        smooth = replace(value, scales=value.scales / divisor, bias=value.bias / divisor)
        quantized[layer.query.name] = replace(inputs, layers=(query, key, smooth))
    full = layer.value
    smooth_full = Linear(name=full.name, weight=full.weight / divisor, bias=full.bias / divisor)
    return replace(layer, value=smooth_full)


def _products(graph: Graph, group: QuantizedGroup, x: ir.Value) -> list[ir.Value]:
    """The tensor is quantized once for all layers that read it."""
    name = group.layers[0].name
    if group.divisor is not None:
        # A product, because QuantizeLinear with a scale a channel is ten times slower on CPU.
        x = graph.op("Mul", x, graph.weight(f"{name}.smoothing", 1 / group.divisor))
    scale = graph.weight(f"{name}.input_scale", np.array(group.scale, np.float32))
    zero_point = graph.weight(f"{name}.input_zero_point", np.array(group.zero_point, np.uint8))
    steps = graph.op("QuantizeLinear", x, scale, zero_point)
    return [_product(graph, layer, steps, scale, zero_point) for layer in group.layers]


def _product(graph: Graph, layer: QuantizedLinear, steps: ir.Value, scale: ir.Value, zero_point: ir.Value) -> ir.Value:
    return graph.op(
        "MatMulIntegerToFloat",
        steps,
        graph.weight(f"{layer.name}.weight_s8", layer.weight),
        scale,
        graph.weight(f"{layer.name}.weight_scale", layer.scales),
        zero_point,
        None,
        graph.weight(f"{layer.name}.bias_s8", layer.bias),
        domain=MICROSOFT,
    )
