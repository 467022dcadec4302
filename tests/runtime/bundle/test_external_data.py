"""The files that a graph reads its weights from are found wherever ONNX allows a tensor."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from encort.runtime.bundle.external_data import external_files


def external(name: str) -> TensorProto:
    tensor = TensorProto(name="weight", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    for key, value in {"offset": "0", "location": name, "length": "8"}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def found(model: onnx.ModelProto | bytes) -> set[str]:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return external_files(io.BufferedReader(io.BytesIO(content)))  # type: ignore[arg-type]


def constant(graph: Any, tensor: TensorProto) -> None:
    graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def subgraph(graph: Any, tensor: TensorProto) -> None:
    inner = helper.make_graph([], "inner", [], [], [tensor])
    graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))


def sparse(graph: Any, tensor: TensorProto) -> None:
    graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, dims=[4]))


@pytest.mark.parametrize("place", [lambda graph, tensor: graph.initializer.append(tensor), constant, subgraph, sparse])
def test_a_tensor_is_found_in_every_place_of_a_graph(place: Callable[[Any, TensorProto], None]) -> None:
    graph = helper.make_graph([], "graph", [], [], [helper.make_tensor("inside", TensorProto.FLOAT, [2], [1, 2])])
    place(graph, external("weights.bin"))
    assert found(helper.make_model(graph)) == {"weights.bin"}


def test_a_tensor_is_found_in_a_function() -> None:
    node = helper.make_node("Constant", [], ["c"], value=external("weights.bin"))
    function = helper.make_function("own", "F", [], ["c"], [node], [helper.make_opsetid("", 17)])
    assert found(helper.make_model(helper.make_graph([], "graph", [], []), functions=[function])) == {"weights.bin"}


def test_the_graphs_of_a_bundle_name_their_weights(classifier_bundle: Path) -> None:
    for name in ("cpu-fp32.onnx", "cpu-fp32-ragged.onnx"):
        assert found((classifier_bundle / name).read_bytes()) == {"cpu-fp32.weights"}


def test_a_graph_with_its_weights_inside_names_no_file(classifier_bundle: Path) -> None:
    assert found(onnx.load(classifier_bundle / "cpu-fp32.onnx")) == set()


@pytest.mark.parametrize("size", [1, 2, 100, 1000])
def test_a_graph_that_is_cut_off_is_refused(classifier_bundle: Path, size: int) -> None:
    with pytest.raises(ValueError, match=r"longer than its message|cut off|unknown type"):
        found((classifier_bundle / "cpu-fp32.onnx").read_bytes()[:-size])


def test_a_graph_with_endless_levels_is_refused() -> None:
    content = b""
    for _ in range(300):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # graph of an attribute of a node of a graph
            length = len(content)
            content = tag + bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + content
    length = len(content)
    content = b"\x3a" + bytes([length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + content
    with pytest.raises(ValueError, match="nested too deeply"):
        found(content)
