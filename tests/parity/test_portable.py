"""Plain ONNX Runtime runs `model.onnx` of every architecture and head, and gives the results of eager transformers."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from encort.export.portable import write_portable
from encort.export.source.export_source import ExportSource
from tests.parity.conftest import HEADS

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def portable(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """`portable(checkpoint)` writes the portable graph of a checkpoint once."""

    @functools.cache
    def write(checkpoint: Path) -> Path:
        folder = tmp_path_factory.mktemp("portable")
        return folder / write_portable(ExportSource.open([str(checkpoint)]), folder, "model.onnx").file

    return write


def run(file: Path, inputs: Arrays) -> Arrays:
    """Run a graph as a program in C would: int64 inputs by name, and all outputs."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    feeds = {node.name: inputs[node.name] for node in session.get_inputs()}
    assert {node.type for node in session.get_inputs()} == {"tensor(int64)"}
    names = [node.name for node in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@torch.inference_mode()
def run_eager(folder: Path, inputs: Arrays) -> Arrays:
    loader = getattr(transformers, json.loads((folder / "config.json").read_text())["architectures"][0])
    model = loader.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    if getattr(model.config, "type_vocab_size", 1) < 2:
        del tensors["token_type_ids"]
    hidden, mask = model.base_model(**tensors).last_hidden_state, tensors["attention_mask"].unsqueeze(2)
    mean = (hidden * mask).sum(1) / mask.sum(1)
    outputs = {"last_hidden_state": hidden, "sentence_embedding": torch.nn.functional.normalize(mean, dim=1)}
    outputs |= model(**tensors)
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def random_inputs(folder: Path, *, shape: tuple[int, int], padding: str) -> Arrays:
    """Return random ids, types and masks: holes anywhere, or texts of random lengths with padding at one end."""
    random = np.random.default_rng(shape[1])
    config = json.loads((folder / "config.json").read_text())
    lengths = random.integers(1, shape[1] + 1, (shape[0], 1))
    lengths[-1] = shape[1]
    columns = np.arange(shape[1])
    masks = {
        "left": columns >= shape[1] - lengths,
        "right": columns < lengths,
        "anywhere": (random.random(shape) < 0.7) | (columns == random.integers(0, shape[1], (shape[0], 1))),
    }
    mask = masks[padding].astype(np.int64)
    ids = random.integers(0, config["vocab_size"], shape)
    return {
        "input_ids": np.where(mask == 1, ids, config["pad_token_id"]),
        "attention_mask": mask,
        "token_type_ids": random.integers(0, 2, shape),
    }


@pytest.mark.parametrize("head", [head for head in HEADS if head not in ("next-sentence-prediction", "fill-mask")])
def test_the_graph_equals_eager_for_any_mask(
    architecture: str, head: str, checkpoint: Callable[..., Path], portable: Callable[[Path], Path]
) -> None:
    folder = checkpoint(architecture, head)
    for shape, padding in [((1, 1), "right"), ((3, 13), "left"), ((5, 64), "right"), ((2, 31), "anywhere")]:
        inputs = random_inputs(folder, shape=shape, padding=padding)
        expected, outputs = run_eager(folder, inputs), run(portable(folder), inputs)
        # DistilBERT and MPNet have no pooler, and heads on tokens leave it out.
        assert expected.keys() <= outputs.keys() <= {*expected, "pooler_output"}
        for name, array in expected.items():
            is_token = inputs["attention_mask"] == 1
            # In DeBERTa a hidden token attends to padding too, so that heads on a hidden first token mean nothing.
            rows = is_token[:, 0] if architecture.startswith("deberta") else ...
            tokens = is_token if array.shape[:2] == shape and array.ndim > 1 else rows
            np.testing.assert_allclose(outputs[name][tokens], array[tokens], rtol=0, atol=1e-4, err_msg=name)


def test_only_standard_operators_are_used(
    architecture: str, checkpoint: Callable[..., Path], portable: Callable[[Path], Path]
) -> None:
    model = onnx.load(portable(checkpoint(architecture, "text-classification")))
    assert {imported.domain: imported.version for imported in model.opset_import} == {"": 18}
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions
    onnx.checker.check_model(model, full_check=True)


def test_a_row_without_tokens_is_finite(
    architecture: str, checkpoint: Callable[..., Path], portable: Callable[[Path], Path]
) -> None:
    folder = checkpoint(architecture, "text-classification")
    inputs: dict[str, Any] = random_inputs(folder, shape=(2, 9), padding="right")
    inputs["attention_mask"][0] = 0
    for name, array in run(portable(folder), inputs).items():
        assert np.isfinite(array).all(), name
