"""The quantized encoder: which layers are int8, and their nodes in the graph."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from tqdm import tqdm

from encort.export.graph.builder import MICROSOFT, GraphBuilder
from encort.export.graph.description import Description, Encoder, Layer, Linear
from encort.export.graph.heads import author
from encort.export.graph.layers import emit_float_linears, operator_layers
from encort.export.int8.calibration import Calibration, cases, groups, observe, simulated
from encort.export.int8.native import native_layers
from encort.export.int8.quantization import STRENGTHS, QuantizedGroup, QuantizedLinear, quantize
from encort.export.source.export_source import ExportSource
from encort.export.verification.oracle import Case, Oracle, padded_case
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    SENTENCE_EMBEDDING,
    SPARSE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    Embedding,
    Layout,
)
from encort.runtime.common.arrays import FloatArray
from encort.runtime.text.token_batch import TokenBatch
from encort.runtime.verification.tolerance import cosines

log = logging.getLogger("encort")

MEAN_COSINE, MIN_COSINE = 0.998, 0.985
"""Budget of cosines: least mean and least single cosine between int8 vectors and float32 vectors."""
_BATCH = 16
_PROBES = 64
"""Texts on which the sensitivity of each group is measured."""


@dataclass(frozen=True, eq=False, kw_only=True)
class QuantizedModel:
    """A model with int8 layers.

    Attributes:
        description: Description of the model in full precision.
        groups: Quantized groups of layers, by the name of each group's first layer.
    """

    description: Description
    groups: Mapping[str, QuantizedGroup]

    @classmethod
    def unquantized(cls, source: ExportSource) -> "QuantizedModel":
        """Return the model of a source with all layers in full precision."""
        assert source.description is not None
        return cls(description=source.description, groups={})

    def without(self, names: Collection[str]) -> "QuantizedModel":
        """Return the model with the named groups in full precision."""
        return replace(self, groups={name: group for name, group in self.groups.items() if name not in names})

    def author(self, layout: Layout, *, embedding: Embedding | None) -> ir.Model:
        """Write the graph; see `encort.export.graph.heads.author`."""
        folded = dict(self.groups)
        encoders = tuple(_fold_encoder(encoder, folded) for encoder in self.description.encoders)

        def emit_linears(builder: GraphBuilder, layers: Sequence[Linear], x: ir.Value) -> list[ir.Value]:
            group = folded.get(layers[0].name)
            return emit_float_linears(builder, layers, x) if group is None else _emit_group(builder, group, x)

        model = replace(self.description, encoders=encoders)
        return author(model, layout, embedding=embedding, layers=partial(operator_layers, linears=emit_linears))

    def author_native(self, *, embedding: Embedding | None) -> ir.Model:
        """Write the graph with the operators of encort-kernels: quantized groups in int8, all others in bfloat16."""
        folded = dict(self.groups)
        encoders = tuple(_fold_encoder(encoder, folded) for encoder in self.description.encoders)
        model = replace(self.description, encoders=encoders)
        return author(model, Layout.RAGGED, embedding=embedding, layers=partial(native_layers, groups=folded))


def fit_int8(
    source: ExportSource, calibration: Calibration, *, weight_bits: int, progress: bool = False
) -> QuantizedModel:
    """Quantize a model as far as the budget of cosines allows."""
    model = quantize_model(source, calibration.seen, weight_bits=weight_bits, progress=progress)
    return within_budget(model, Oracle.of(source), calibration.judged, progress=progress)


def quantize_model(
    source: ExportSource,
    texts: TokenBatch,
    *,
    weight_bits: int,
    strengths: Sequence[float] = STRENGTHS,
    progress: bool = False,
) -> QuantizedModel:
    """Quantize every linear layer of the encoders.

    Args:
        source: Source of the export, with a description.
        texts: Calibration texts, similar in length and kind to the texts that will be served.
        weight_bits: 8, or 7 for processors without an exact product of bytes.
        strengths: Strengths of smoothing to try.
        progress: Show a progress bar on stderr.
    """
    assert source.description is not None
    layers = groups(source.description.encoders)
    seen = observe(Oracle.of(source), cases(texts), layers)
    bar = tqdm(layers.items(), desc="quantize", unit="tensor", disable=None if progress else True)
    quantized = {name: quantize(group, seen[name], weight_bits=weight_bits, strengths=strengths) for name, group in bar}
    return QuantizedModel(description=source.description, groups=quantized)


def within_budget(
    model: QuantizedModel, oracle: Oracle, texts: TokenBatch, *, progress: bool = False
) -> QuantizedModel:
    """Return the model with its most sensitive groups in full precision: as few as the budget of cosines needs.

    Args:
        model: Model with all groups quantized.
        oracle: Eager PyTorch of the same source.
        texts: Texts that were not used to choose the ranges.
        progress: Show a progress bar on stderr.
    """
    judged = _probes(texts, len(texts))
    expected = _vectors(oracle, judged)
    sensitive: list[str] = []
    excluded = 0
    while excluded < len(model.groups) and not _is_near(
        _compare(model.without(sensitive[:excluded]), oracle, judged, expected)
    ):
        if not sensitive:
            sensitive = by_sensitivity(model, oracle, texts, progress=progress)
        excluded += 1
    if excluded:
        log.warning("int8: %d of %d tensors stay in fp32, for the budget of cosines", excluded, len(model.groups))
    return model.without(sensitive[:excluded])


def judge(model: QuantizedModel, oracle: Oracle, texts: TokenBatch) -> NDArray[np.float64]:
    """Return the cosine between the int8 vector and the float32 vector of each text, or of each token."""
    judged = _probes(texts, len(texts))
    return _compare(model, oracle, judged, _vectors(oracle, judged))


def _compare(
    model: QuantizedModel, oracle: Oracle, judged: Sequence[Case], expected: FloatArray
) -> NDArray[np.float64]:
    with simulated(oracle, model.groups):
        return cosines(_vectors(oracle, judged), expected)


def _is_near(similarities: NDArray[np.float64]) -> bool:
    return bool(similarities.mean() >= MEAN_COSINE and similarities.min() >= MIN_COSINE)


def by_sensitivity(model: QuantizedModel, oracle: Oracle, texts: TokenBatch, *, progress: bool = False) -> list[str]:
    """Return the names of the groups, the most sensitive first.

    The sensitivity of a group is the change of the texts' vectors when this group alone is quantized.
    """
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
    """Return at most `count` of the texts, evenly spaced, in padded cases of similar length."""
    picked = np.unique(np.linspace(0, len(texts) - 1, count).astype(np.int64))
    ordered = picked[np.argsort(texts.lengths[picked], kind="stable")]
    rows = [texts.rows(np.array([index])) for index in ordered]
    return [padded_case("probes", rows[start : start + _BATCH]) for start in range(0, len(rows), _BATCH)]


def _vectors(oracle: Oracle, probes: Sequence[Case]) -> FloatArray:
    """Return the vectors that accuracy is judged by.

    These are the sentence embeddings; for heads that read every token, the hidden states; for a dual encoder, the
    logits; for a model of token vectors or of sparse embeddings alone, these.
    """
    rows = []
    for case in probes:
        outputs = oracle(case)
        if oracle.embedding is None and SPARSE_EMBEDDING in outputs:
            rows.append(outputs[SPARSE_EMBEDDING])
        elif oracle.embedding is None and not oracle.heads:
            rows.append(outputs[TOKEN_EMBEDDINGS][case.mask == 1])
        elif oracle.embedding is None:
            rows.append(outputs[oracle.heads[0].outputs[0]])
        elif oracle.is_tokenwise:
            hidden = outputs[LAST_HIDDEN_STATE]
            rows.append(hidden[case.mask == 1])
        else:
            rows.append(outputs[SENTENCE_EMBEDDING])
    return np.concatenate(rows)


def _fold_encoder(encoder: Encoder, quantized: dict[str, QuantizedGroup]) -> Encoder:
    """Fold the smoothing of attention outputs into the value layers, and update `quantized` to match.

    The input of the attention output is a weighted mean of values, so dividing the values divides that input too, and
    the graph needs no node for it.
    """
    # The same layer may run several times, and is folded once.
    folded = {layer: _fold_layer(layer, quantized) for layer in dict.fromkeys(encoder.layers)}
    return replace(encoder, layers=tuple(folded[layer] for layer in encoder.layers))


def _fold_layer(layer: Layer, quantized: dict[str, QuantizedGroup]) -> Layer:
    attention = layer.attention
    output = quantized.get(attention.output.name)
    if output is None or output.divisor is None or attention.heads.groups < attention.heads.count:
        # Heads that share values have different divisors, so the graph divides the input.
        return layer
    divisor, value = output.divisor, attention.value
    quantized[attention.output.name] = replace(output, divisor=None)
    if attention.query.name in quantized:
        inputs = quantized[attention.query.name]
        query, key, steps = inputs.layers
        divided = replace(steps, scales=steps.scales / divisor, bias=steps.bias / divisor)
        quantized[attention.query.name] = replace(inputs, layers=(query, key, divided))
    bias = None if value.bias is None else value.bias / divisor
    return replace(layer, attention=replace(attention, value=replace(value, weight=value.weight / divisor, bias=bias)))


def _emit_group(builder: GraphBuilder, group: QuantizedGroup, x: ir.Value) -> list[ir.Value]:
    """Write the nodes that quantize `x` once, and the product of each layer with it."""
    name = group.layers[0].name
    if group.divisor is not None:
        # Mul with the inverse, because QuantizeLinear with a scale per channel is ten times slower on CPUs.
        x = builder.op("Mul", x, builder.weight(f"{name}.smoothing", 1 / group.divisor))
    scale = builder.weight(f"{name}.input_scale", np.array(group.scale, np.float32))
    zero_point = builder.weight(f"{name}.input_zero_point", np.array(group.zero_point, np.uint8))
    steps = builder.op("QuantizeLinear", x, scale, zero_point)
    return [_emit_product(builder, layer, steps, scale, zero_point) for layer in group.layers]


def _emit_product(
    builder: GraphBuilder, layer: QuantizedLinear, steps: ir.Value, scale: ir.Value, zero_point: ir.Value
) -> ir.Value:
    return builder.op(
        "MatMulIntegerToFloat",
        steps,
        builder.weight(f"{layer.name}.weight_s8", layer.weight),
        scale,
        builder.weight(f"{layer.name}.weight_scale", layer.scales),
        zero_point,
        None,
        builder.weight(f"{layer.name}.bias_s8", layer.bias),
        domain=MICROSOFT,
    )
