"""Write the graphs of a bundle into its folder."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from encort.export.graph.builder import axes, save_sharing_weights
from encort.export.graph.description import Description, Layer
from encort.export.graph.float16 import to_float16
from encort.export.graph.heads import author
from encort.export.int8.model import QuantizedModel
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.bundle import Bundle
from encort.runtime.bundle.cpu import VNNI
from encort.runtime.bundle.kernels import KERNELS
from encort.runtime.bundle.manifest import TOKENIZER_FILE, Device, Layout, Precision, Variant
from encort.runtime.model import Model
from encort.runtime.options import LoadOptions

CACHE = 2**26
"""Bytes. Larger weights do not stay in the processor's cache between runs, so that few large runs are faster."""


def write_fp32(source: ExportSource, folder: Path) -> list[Variant]:
    """Write the fp32 graphs of both layouts, the faster first, with one file of weights."""
    description = _description(source)
    return _write(
        folder,
        lambda layout: author(description, layout, embedding=source.embedding),
        layouts(source, Precision.FP32),
        precision=Precision.FP32,
        instruction_set=None,
    )


def write_int8(source: ExportSource, model: QuantizedModel, folder: Path, *, weight_bits: int) -> list[Variant]:
    """Write the int8 graphs of both layouts, the faster first, with one file of weights."""
    return _write(
        folder,
        lambda layout: model.author(layout, embedding=source.embedding),
        layouts(source, Precision.INT8),
        precision=Precision.INT8,
        instruction_set=VNNI if weight_bits == 8 else None,
    )


def write_native(source: ExportSource, model: QuantizedModel, folder: Path, precision: Precision) -> Variant:
    """Write the graph with the operators of encort-kernels: the quantized groups in int8, all others in bfloat16."""
    name = f"native-{precision}"
    graph = model.author_native(embedding=source.embedding)
    return _save({name: (Layout.RAGGED, graph)}, folder, name, precision, instruction_set=KERNELS)[0]


def write_cuda(source: ExportSource, folder: Path, precision: Precision) -> Variant:
    """Write the packed graph for CUDA."""
    description = _description(source)
    converted = to_float16(description) if precision is Precision.FP16 else description
    name = f"{Device.CUDA}-{precision}"
    model = author(converted, Layout.PACKED, embedding=source.embedding)
    return _save({name: (Layout.PACKED, model)}, folder, name, precision, instruction_set=None, device=Device.CUDA)[0]


def layouts(source: ExportSource, precision: Precision) -> list[Layout]:
    """Return both layouts for CPUs, the faster first; the only one that holds unattended tokens, if there are such.

    Equal length is faster as long as the weights stay in the cache, because many small runs then cost no more than a
    few large ones; docs/decisions/0003 has the measurements.
    """
    if source.retrieval.expands_unattended:
        return [Layout.EXPANDED]
    weights = sum(_weight_count(layer) for encoder in _description(source).encoders for layer in encoder.layers)
    is_cached = weights * (1 if precision is Precision.INT8 else 4) <= CACHE
    return [Layout.EQUAL_LENGTH, Layout.RAGGED] if is_cached else [Layout.RAGGED, Layout.EQUAL_LENGTH]


@contextmanager
def open_candidate(
    model: QuantizedModel | None, *, source: ExportSource, folder: Path, weight_bits: int
) -> Iterator[Model]:
    """Open a model as users load it, from a temporary bundle with this model alone.

    Args:
        model: Quantized model; None opens the model in full precision.
        source: Source of the export.
        folder: Folder with the tokenizer of the bundle. The temporary bundle is inside, so that it goes with it.
        weight_bits: Bits of the quantized weights.
    """
    with TemporaryDirectory(dir=folder) as name:
        temporary = Path(name)
        shutil.copy(folder / TOKENIZER_FILE, temporary)
        if model is None:
            variants = write_fp32(source, temporary)
        else:
            variants = write_int8(source, model, temporary, weight_bits=weight_bits)
        with Model(Bundle(temporary, source.manifest(temporary, variants)), LoadOptions()) as opened:
            yield opened


def _description(source: ExportSource) -> Description:
    assert source.description is not None
    return source.description


def _weight_count(layer: Layer) -> int:
    return sum(linear.weight.size for group in layer.linear_groups for linear in group)


def _write(
    folder: Path,
    author_layout: Callable[[Layout], ir.Model],
    layouts: Sequence[Layout],
    *,
    precision: Precision,
    instruction_set: str | None,
) -> list[Variant]:
    suffixes = {Layout.EQUAL_LENGTH: "", Layout.RAGGED: "-ragged", Layout.EXPANDED: ""}
    models = {f"{Device.CPU}-{precision}{suffixes[layout]}": (layout, author_layout(layout)) for layout in layouts}
    return _save(models, folder, f"{Device.CPU}-{precision}", precision, instruction_set=instruction_set)


def _save(
    models: Mapping[str, tuple[Layout, ir.Model]],
    folder: Path,
    stem: str,
    precision: Precision,
    *,
    instruction_set: str | None,
    device: Device = Device.CPU,
) -> list[Variant]:
    """Save graphs of one precision, by their names, with one file of weights, which is named by its stem."""
    weights_file = f"{stem}.weights"
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
