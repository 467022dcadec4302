"""A short builder for ONNX graphs, over onnx-ir."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir import external_data, tape

OPSETS = {"": 18, "com.microsoft": 1}
IR_VERSION = 10


class Graph:
    """A graph while it is written: a new one, or one that gets more nodes."""

    def __init__(self, graph: ir.Graph | str) -> None:
        """Begin a graph of that name, or go on with one."""
        new = ir.Graph((), (), nodes=(), opset_imports=OPSETS, name=graph) if isinstance(graph, str) else graph
        self._graph, self._tape = new, tape.Tape(new)
        self._weights: dict[str, ir.Value] = {}

    def input(self, name: str, dtype: ir.DataType, axes: Sequence[str]) -> ir.Value:
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(axes))
        self._graph.inputs.append(value)
        return value

    def output(self, value: ir.Value, name: str, axes: Sequence[str | int]) -> None:
        """Give `value`, float32, a name among the graph's outputs."""
        # An output needs a value of its own: the same one may be used under two names.
        named = self.op("Identity", value)
        named.name, named.type, named.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(axes)
        self._graph.outputs.append(named)

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A constant array; the same name gives the same value."""
        if name not in self._weights:
            self._weights[name] = self._tape.initializer(ir.tensor(array, name=name), name=name)
        return self._weights[name]

    def integers(self, *values: int) -> ir.Value:
        """A constant `(len(values),)` int64, for axes and indices."""
        return self.weight(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """One node with one output."""
        return self._tape.op(kind, inputs, attributes, domain=domain)

    def model(self) -> ir.Model:
        return ir.Model(self._graph, ir_version=IR_VERSION, producer_name="encort")


class Function(Graph):
    """A function while it is written: an operator made of others."""

    def argument(self, name: str) -> ir.Value:
        value = ir.Value(name=name)
        self._graph.inputs.append(value)
        return value

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        """A constant array; functions have no initializers."""
        if name not in self._weights:
            self._weights[name] = self.op("Constant", value=ir.tensor(array))
        return self._weights[name]

    def function(self, domain: str, result: ir.Value, *, attributes: Sequence[str]) -> ir.Function:
        """It gives the result, and takes attributes of these names."""
        self._graph.outputs.append(result)
        wanted = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in attributes]
        return ir.Function(domain, str(self._graph.name), graph=self._graph, attributes=wanted)


def save_sharing_weights(models: dict[str, ir.Model], folder: Path, weights_file: str) -> None:
    """Write graphs to `folder` by their file names, with one file of weights for all of them.

    Weights are shared by name. They lie outside of the graphs so that ONNX Runtime maps them into memory
    instead of copying them.
    """
    arrays = {name: value.const_value for model in models.values() for name, value in _weights(model).items()}
    tensors = [tensor for tensor in arrays.values() if tensor is not None]
    external = external_data.convert_tensors_to_external(tensors, folder, weights_file, alignment=4096)
    by_name = {tensor.name: tensor for tensor in external}
    for file, model in models.items():
        for name, value in _weights(model).items():
            value.const_value = by_name[name]
        ir.save(model, folder / file)


def axes(values: Sequence[ir.Value]) -> dict[str, list[str]]:
    """Axes of inputs or outputs by name, as the manifest has them."""
    return {str(value.name): [str(getattr(axis, "value", axis)) for axis in value.shape or ()] for value in values}


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    """Initializers that are worth a place in the weights file; shapes and axes stay in the graph."""
    initializers = model.graph.initializers.items()
    return {name: value for name, value in initializers if value.const_value and value.const_value.nbytes >= 256}
