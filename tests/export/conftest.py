"""Fixtures for the tests of export: eager PyTorch, authored graphs, and exports that must be refused."""

import functools
import itertools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

from encort.export import exporter
from encort.export.graph.builder import save_sharing_weights
from encort.export.graph.heads import author
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import Pooling
from encort.runtime.common.errors import CheckpointError

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def eager() -> Callable[..., Arrays]:
    """`eager(checkpoint, inputs)` returns the outputs of transformers, computed without encort."""

    @functools.lru_cache(maxsize=4)
    def load(folder: Path) -> Any:
        config = json.loads((folder / "config.json").read_text())
        architecture = getattr(transformers, config["architectures"][0])
        return architecture.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(folder: Path, inputs: Arrays) -> Arrays:
        model = load(folder)
        tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
        base = model.base_model(**tensors)
        outputs = {"last_hidden_state": base.last_hidden_state, "pooler_output": base.get("pooler_output")}
        if model is not model.base_model:
            outputs["logits"] = model(**tensors).logits
        return {name: tensor.numpy() for name, tensor in outputs.items() if tensor is not None}

    return run


@pytest.fixture(scope="session")
def authored(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., onnxruntime.InferenceSession]:
    """`authored(checkpoint, layout, pooling=, normalize=)` opens a checkpoint's graph in ONNX Runtime."""

    def build(folder: Path, layout: str, *, pooling: Pooling = Pooling.MEAN, normalize: bool = True) -> Any:
        source = ExportSource.open([str(folder)], pooling=[pooling], normalize=normalize)
        target = tmp_path_factory.mktemp("authored")
        model = author(source.description, layout, embedding=source.embedding)
        save_sharing_weights({"model.onnx": model}, target, "model.weights")
        return onnxruntime.InferenceSession(target / "model.onnx", providers=["CPUExecutionProvider"])

    return build


@pytest.fixture(scope="session")
def run_graph() -> Callable[..., Arrays]:
    """`run_graph(session, inputs)` returns every output by name; the graph reads the inputs that it has."""

    def run(session: onnxruntime.InferenceSession, inputs: Arrays) -> Arrays:
        feeds = {node.name: inputs[node.name] for node in session.get_inputs()}
        outputs = [node.name for node in session.get_outputs()]
        return dict(zip(outputs, session.run(outputs, feeds), strict=True))

    return run


@pytest.fixture(scope="session")
def token_cases() -> Callable[..., Any]:
    """`token_cases(limit, masked=)` yields random inputs: batches of 1 and 32, from one token to the limit."""

    def cases(limit: int, *, masked: bool, vocabulary: int = 100, types: int = 2) -> Any:
        random = np.random.default_rng(limit)
        for shape in itertools.product((1, 32), sorted({1, 2, 7, limit - 1, limit})):
            mask = random.integers(0, 2, shape) if masked else np.ones(shape, np.int64)
            mask[:, 0] = 1
            yield {
                "input_ids": random.integers(0, vocabulary, shape),
                "token_type_ids": random.integers(0, types, shape),
                "attention_mask": mask,
            }

    return cases


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Path of a bundle that does not exist yet, alone in its folder."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    return folder / "new.bundle"


@pytest.fixture
def checkpoint_copy(tmp_path: Path) -> Callable[[Path], Path]:
    """`checkpoint_copy(folder)` returns a copy of a checkpoint, which a test may change."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """`edit_json(file, name=value)` changes entries of a JSON file."""

    def edit(file: Path, **changes: Any) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return edit


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., None]:
    """`refused(checkpoint, message)` checks that an export fails with that message and leaves nothing behind."""

    def check(checkpoint: Path | str, message: str, **options: Any) -> None:
        parent = tmp_path / "refused"
        parent.mkdir()
        with pytest.raises(CheckpointError, match=message):
            exporter.export_bundle(checkpoint, parent / "wrong.bundle", **options)
        assert list(parent.iterdir()) == []

    return check


@pytest.fixture
def files() -> Callable[[Path], Mapping[str, bytes]]:
    """`files(folder)` returns the content of every file by its name."""
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}
