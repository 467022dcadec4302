"""The graphs of a bundle, written to its folder."""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import onnx_ir as ir

from encort.export.graph.builder import axes, save_sharing_weights
from encort.export.graph.description import Description, Layer
from encort.export.graph.float16 import to_float16
from encort.export.graph.heads import author
from encort.export.int8.model import QuantizedModel
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.cpu import VNNI
from encort.runtime.bundle.manifest import Device, Layout, Precision, Variant

CACHE = 2**26
"""Bytes of weights from which on reading them again for every run costs more than padding in attention."""


class VariantKind(StrEnum):
    """What `encort export` makes: the fast graphs in each precision, the portable one, and those for GPUs."""

    FP32 = "fp32"
    INT8 = "int8"
    PORTABLE = "portable"
    CUDA_FP16 = "cuda-fp16"
    CUDA_FP32 = "cuda-fp32"


BY_DEFAULT = (VariantKind.FP32, VariantKind.INT8, VariantKind.PORTABLE)
"""What is made unless something else is asked for: graphs for a GPU are as large again, and of no use without one."""
CUDA = {VariantKind.CUDA_FP16: Precision.FP16, VariantKind.CUDA_FP32: Precision.FP32}


def write_fp32(trained: ExportSource, folder: Path) -> list[Variant]:
    """The graphs of both layouts, the faster first, with one file of weights."""
    description = _described(trained)
    return _write(
        folder,
        lambda layout: author(description, layout, embedding=trained.embedding),
        layouts(trained, Precision.FP32),
        precision=Precision.FP32,
        instruction_set=None,
    )


def write_int8(trained: ExportSource, model: QuantizedModel, folder: Path, *, weight_bits: int) -> list[Variant]:
    """The 8-bit graphs of both layouts, the faster first, with one file of weights."""
    return _write(
        folder,
        lambda layout: model.author(layout, embedding=trained.embedding),
        layouts(trained, Precision.INT8),
        precision=Precision.INT8,
        instruction_set=VNNI if weight_bits == 8 else None,
    )


def write_cuda(trained: ExportSource, folder: Path, precision: Precision) -> Variant:
    """The packed graph for CUDA."""
    description = _described(trained)
    chosen = to_float16(description) if precision is Precision.FP16 else description
    name = f"{Device.CUDA}-{precision}"
    model = author(chosen, Layout.PACKED, embedding=trained.embedding)
    return _save({name: (Layout.PACKED, model)}, folder, Device.CUDA, precision, instruction_set=None)[0]


def layouts(trained: ExportSource, precision: Precision) -> list[Layout]:
    """Both layouts, the faster first: small weights stay in the cache, so that many runs cost no more than few."""
    weights = sum(_weights(layer) for encoder in _described(trained).encoders for layer in encoder.layers)
    is_cached = weights * (1 if precision is Precision.INT8 else 4) <= CACHE
    return [Layout.EQUAL_LENGTH, Layout.RAGGED] if is_cached else [Layout.RAGGED, Layout.EQUAL_LENGTH]


def _described(trained: ExportSource) -> Description:
    assert trained.description is not None
    return trained.description


def _weights(layer: Layer) -> int:
    linears = (layer.query, layer.key, layer.value, layer.attention_output, layer.intermediate, layer.output)
    return sum(linear.weight.size for linear in linears)


def _write(
    folder: Path,
    write: Callable[[Layout], ir.Model],
    layouts: Sequence[Layout],
    *,
    precision: Precision,
    instruction_set: str | None,
) -> list[Variant]:
    suffixes = {Layout.EQUAL_LENGTH: "", Layout.RAGGED: "-ragged"}
    models = {f"{Device.CPU}-{precision}{suffixes[layout]}": (layout, write(layout)) for layout in layouts}
    return _save(models, folder, Device.CPU, precision, instruction_set=instruction_set)


def _save(
    models: Mapping[str, tuple[Layout, ir.Model]],
    folder: Path,
    device: Device,
    precision: Precision,
    *,
    instruction_set: str | None,
) -> list[Variant]:
    """Write graphs of one device and precision, by their names, with one file of weights."""
    weights_file = f"{device}-{precision}.weights"
    save_sharing_weights({f"{name}.onnx": model for name, (_, model) in models.items()}, folder, weights_file)
    return [
        Variant(
            name=name,
            file=f"{name}.onnx",
            weights_file=weights_file,
            device=device,
            precision=precision,
            layout=layout,
            instruction_set=instruction_set,
            inputs=axes(model.graph.inputs),
            outputs=axes(model.graph.outputs),
            fidelity=None,
        )
        for name, (layout, model) in models.items()
    ]
