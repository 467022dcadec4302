"""The graphs of a bundle, written to its folder."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import onnx_ir as ir

from encort.export.eight_bit import EightBitModel
from encort.export.graph import axes, save_sharing_weights
from encort.export.heads import author
from encort.export.trained import TrainedModel
from encort.runtime.cpu import VNNI
from encort.runtime.manifest import Device, Layout, Precision, Variant


class Kind(StrEnum):
    """What `encort export` makes: the fast graphs in each precision, and the portable one."""

    FP32 = "fp32"
    INT8 = "int8"
    PORTABLE = "portable"


def write_full_precision(trained: TrainedModel, folder: Path) -> list[Variant]:
    """The graphs of both layouts, with one file of weights."""
    assert trained.description is not None
    models = {
        ("cpu-fp32" if layout is Layout.EQUAL_LENGTH else "cpu-fp32-padded"): (
            layout,
            author(trained.description, layout, embedding=trained.embedding),
        )
        for layout in (Layout.EQUAL_LENGTH, Layout.PADDED)
    }
    return _write(folder, models, weights_file="cpu-fp32.weights", precision=Precision.FP32, instruction_set=None)


def write_eight_bit(trained: TrainedModel, model: EightBitModel, folder: Path, *, weight_bits: int) -> Variant:
    """The 8-bit graph; it has one layout, so that a text always takes the same way through the kernels."""
    models = {"cpu-int8": (Layout.EQUAL_LENGTH, model.author(Layout.EQUAL_LENGTH, embedding=trained.embedding))}
    (variant,) = _write(
        folder,
        models,
        weights_file="cpu-int8.weights",
        precision=Precision.INT8,
        instruction_set=VNNI if weight_bits == 8 else None,
    )
    return variant


def _write(
    folder: Path,
    models: Mapping[str, tuple[Layout, ir.Model]],
    *,
    weights_file: str,
    precision: Precision,
    instruction_set: str | None,
) -> list[Variant]:
    save_sharing_weights({f"{name}.onnx": model for name, (_, model) in models.items()}, folder, weights_file)
    return [
        Variant(
            name=name,
            file=f"{name}.onnx",
            weights_file=weights_file,
            device=Device.CPU,
            precision=precision,
            layout=layout,
            instruction_set=instruction_set,
            inputs=axes(model.graph.inputs),
            outputs=axes(model.graph.outputs),
            fidelity=None,
        )
        for name, (layout, model) in models.items()
    ]
