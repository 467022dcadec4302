"""Write ONNX graphs and functions node by node, on top of onnx-ir."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir import external_data, tape

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""
STANDARD_OPSETS = {"": 18}
"""Operators that every ONNX runtime has."""
OPSETS = {**STANDARD_OPSETS, MICROSOFT: 1}
"""Operators of ONNX Runtime."""
IR_VERSION = 10


class GraphBuilder:
    """Write a new ONNX graph, or add nodes to an existing one.

    Example:
        builder = GraphBuilder("double")
        x = builder.input("x", ir.DataType.FLOAT, ("batch", "width"))
        builder.output(builder.op("Add", x, x), "y", ("batch", "width"))
        model = builder.model()
    """

    def __init__(self, graph: ir.Graph | str, *, opsets: Mapping[str, int] = OPSETS) -> None:
        """Start a new graph with the given name and operators, or continue the given graph with its own operators."""
        if isinstance(graph, str):
            graph = ir.Graph((), (), nodes=(), opset_imports=dict(opsets), name=graph)
        self._graph, self._tape = graph, tape.Tape(graph)
        self._weights: dict[str, ir.Value] = {}
        self._branches = 0

    @property
    def is_standard(self) -> bool:
        """Whether the graph may have standard ONNX operators only."""
        return MICROSOFT not in self._graph.opset_imports

    def use(self, domain: str) -> None:
        """Allow operators of version 1 of another domain."""
        self._graph.opset_imports[domain] = 1

    def input(
        self, name: str, dtype: ir.DataType, axes: Sequence[str], *, default: NDArray[Any] | None = None
    ) -> ir.Value:
        """Declare an input of the graph. A caller may leave out an input with a default."""
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(axes))
        self._graph.inputs.append(value)
        if default is not None:
            value.const_value = ir.tensor(default, name=name)
            self._graph.register_initializer(value)
        return value

    def output(self, value: ir.Value, name: str, axes: Sequence[str | int]) -> None:
        """Declare a float32 value as an output of the graph, under the given name."""
        # An output needs a value of its own, because one value may become two outputs.
        named = self.op("Identity", value)
        named.name, named.type, named.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(axes)
        self._graph.outputs.append(named)

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Return a constant array. Every call with the same name returns the value of the first call."""
        if name not in self._weights:
            # In the graph itself: every branch reads it from there.
            value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
            self._graph.register_initializer(value)
            self._weights[name] = value
        return self._weights[name]

    def integers(self, *values: int) -> ir.Value:
        """Return a constant `(len(values),)` int64, for axes and indices."""
        return self.weight(f"integers_{'_'.join(map(str, values))}", np.array(values, np.int64))

    def op(self, kind: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """Add one node and return its only output."""
        return self._tape.op(kind, inputs, attributes, domain=domain)

    def choose(self, condition: ir.Value, then: Callable[[], ir.Value], otherwise: Callable[[], ir.Value]) -> ir.Value:
        """Add nodes of which a run computes only one branch, and return their result.

        Args:
            condition: One bool.
            then: Writes the nodes that run if the condition holds, and returns their result. They may read all values
                that were there before. Values that are first written in a branch exist in this branch only.
            otherwise: Writes the nodes that run if it does not hold.
        """
        return self.op("If", condition, then_branch=self._branch(then), else_branch=self._branch(otherwise))

    def _branch(self, write: Callable[[], ir.Value]) -> ir.Graph:
        branch = ir.Graph((), (), nodes=(), name=f"branch_{self._branches}")
        self._branches += 1
        outer, self._tape = self._tape, tape.Tape(branch)
        try:
            branch.outputs.append(write())
        finally:
            self._tape = outer
        for node in branch:
            for value in node.outputs:
                # Unique in the whole graph, because branches read values of the graph around them.
                value.name = f"{branch.name}.{value.name}"
        return branch

    def model(self) -> ir.Model:
        """Return the finished graph as a model."""
        return ir.Model(self._graph, ir_version=IR_VERSION, producer_name="encort")


class FunctionBuilder(GraphBuilder):
    """Write an ONNX function: an operator that is defined by other operators."""

    def argument(self, name: str) -> ir.Value:
        """Declare an input of the function."""
        value = ir.Value(name=name)
        self._graph.inputs.append(value)
        return value

    def weight(self, name: str, array: NDArray[Any]) -> ir.Value:
        """Return a constant array, from a Constant node because functions cannot have initializers."""
        if name not in self._weights:
            self._weights[name] = self.op("Constant", value=ir.tensor(array))
        return self._weights[name]

    def function(self, domain: str, result: ir.Value, *, attributes: Sequence[str]) -> ir.Function:
        """Return the finished function.

        Args:
            domain: Domain of the new operator.
            result: Output of the function.
            attributes: Names of the attributes that its nodes must have.
        """
        self._graph.outputs.append(result)
        wanted = [ir.Attr(name, ir.AttributeType.UNDEFINED, None) for name in attributes]
        return ir.Function(domain, str(self._graph.name), graph=self._graph, attributes=wanted)


def save_sharing_weights(models: dict[str, ir.Model], folder: Path, weights_file: str) -> None:
    """Write graphs into `folder`, with one common file of weights.

    Graphs share the weights that have the same name. The weights are external data, so that ONNX Runtime maps them
    into memory and does not copy them.

    Args:
        models: Graphs by file name.
        folder: Folder for all files.
        weights_file: Name of the file of weights.
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
    """Return the axes of inputs or outputs by name, in the form of the manifest."""
    return {str(value.name): [str(getattr(axis, "value", axis)) for axis in value.shape or ()] for value in values}


def _weights(model: ir.Model) -> dict[str, ir.Value]:
    """Return the initializers that belong in the file of weights; short ones (axes, indices) stay in the graph."""
    initializers = model.graph.initializers.items()
    return {name: value for name, value in initializers if value.const_value and value.const_value.nbytes >= 256}
