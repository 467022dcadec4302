import shutil
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from encort.export.graph.builder import GraphBuilder, save_sharing_weights

LARGE = np.arange(4096, dtype=np.float32).reshape(2, 2048)


def scaled(sign: int) -> ir.Model:
    """`large + x` or `large - x`, for x `(batch, 2048)` float32."""
    graph = GraphBuilder("scaled")
    x = graph.input("x", ir.DataType.FLOAT, ("batch", 2048))
    first = graph.op("Gather", graph.weight("large", LARGE), graph.integers(1), axis=0)
    graph.output(graph.op("Add" if sign > 0 else "Sub", first, x), "y", ("batch", 2048))
    return graph.model()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_sharing_weights({"add.onnx": scaled(1), "subtract.onnx": scaled(-1)}, tmp_path, "shared.weights")
    return tmp_path


def run(file: Path, x: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


def test_the_same_name_gives_the_same_weight() -> None:
    graph = GraphBuilder("weights")
    assert graph.weight("w", LARGE) is graph.weight("w", LARGE)
    assert graph.integers(0, 1) is graph.integers(0, 1)
    assert graph.integers(0, 1) is not graph.integers(0)


def test_one_value_can_be_two_outputs(tmp_path: Path) -> None:
    graph = GraphBuilder("twice")
    x = graph.input("x", ir.DataType.FLOAT, ("batch", 3))
    graph.output(x, "one", ("batch", 3))
    graph.output(x, "two", ("batch", 3))
    ir.save(graph.model(), tmp_path / "twice.onnx")
    x = np.ones((2, 3), np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "twice.onnx", providers=["CPUExecutionProvider"])
    assert [node.name for node in session.get_outputs()] == ["one", "two"]
    for array in session.run(None, {"x": x}):
        np.testing.assert_array_equal(array, x)


def test_graphs_share_one_file_of_weights(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == {"add.onnx", "subtract.onnx", "shared.weights"}
    assert (folder / "shared.weights").stat().st_size == LARGE.nbytes
    assert (folder / "add.onnx").stat().st_size < LARGE.nbytes


@pytest.mark.parametrize(("file", "sign"), [("add.onnx", 1), ("subtract.onnx", -1)])
def test_graphs_compute_with_the_shared_weights(folder: Path, file: str, sign: int) -> None:
    x = np.random.default_rng(0).normal(size=(3, 2048)).astype(np.float32)
    np.testing.assert_array_equal(run(folder / file, x), LARGE[1] + sign * x)


def test_graphs_load_after_being_moved(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = shutil.move(folder, tmp_path_factory.mktemp("elsewhere") / "moved")
    np.testing.assert_array_equal(run(moved / "add.onnx", np.zeros((1, 2048), np.float32)), LARGE[1:])


def test_axes_and_indices_stay_in_the_graph(folder: Path) -> None:
    model = onnx.load(folder / "add.onnx", load_external_data=False)
    outside = {tensor.name for tensor in model.graph.initializer if tensor.external_data}
    assert outside == {"large"}
    assert {entry.value for entry in model.graph.initializer[0].external_data if entry.key == "location"} == {
        "shared.weights"
    }


def test_onnx_accepts_the_graph(folder: Path) -> None:
    onnx.checker.check_model(str(folder / "add.onnx"), full_check=True)
