"""Write the portable variant: one graph in standard operators, for runtimes and libraries other than encort.

Its inputs and outputs have the names that Optimum's ORTModel classes, sentence-transformers and transformers.js expect.
"""

from pathlib import Path

import onnx_ir as ir

from encort.export.graph.builder import axes
from encort.export.graph.heads import author
from encort.export.source.export_source import ExportSource
from encort.export.traced import trace
from encort.runtime.bundle.manifest import PORTABLE, Device, Layout, Precision, Variant

_LARGEST_FILE = 2**31 - 2**20
"""Largest size of a single ONNX file, in bytes; protobuf has a limit of 2 GiB."""


def write_portable(source: ExportSource, folder: Path, file: str) -> Variant:
    """Write the graph with its weights. Weights over 2 GiB get a file of their own beside it, `model.onnx_data`.

    Args:
        source: Source of the export. A graph for an architecture that encort does not author is traced.
        folder: Folder of the bundle.
        file: Path of the graph in the folder.

    Raises:
        CheckpointError: The architecture is not authored, and it cannot be traced; the message says why.
    """
    description = source.description
    model = trace(source) if description is None else author(description, Layout.PADDED, embedding=source.embedding)
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    is_large = _weight_bytes(model) > _LARGEST_FILE
    # The name that transformers.js and the hub expect.
    weights = path.with_name(f"{path.name}_data") if is_large else None
    ir.save(model, path, external_data=None if weights is None else weights.name)
    return Variant(
        name=PORTABLE,
        file=file,
        weights_file=None if weights is None else weights.relative_to(folder).as_posix(),
        device=Device.CPU,
        precision=Precision.FP32,
        layout=Layout.PADDED,
        instruction_set=None,
        inputs=axes(model.graph.inputs),
        outputs=axes(model.graph.outputs),
        fidelity=None,
    )


def _weight_bytes(model: ir.Model) -> int:
    initializers = model.graph.initializers.values()
    return sum(value.const_value.nbytes for value in initializers if value.const_value is not None)
