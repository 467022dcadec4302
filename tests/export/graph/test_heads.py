from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import transformers

from encort.export.graph.description import Description
from encort.export.graph.heads import author
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import (
    LAST_HIDDEN_STATE,
    POOLER_OUTPUT,
    SENTENCE_EMBEDDING,
    Embedding,
    Layout,
    Pooling,
)
from encort.runtime.common.errors import CheckpointError

LARGEST_ERROR = 5e-5


@pytest.fixture(scope="session")
def poolerless_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    folder = make_checkpoint(seed=4)
    transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def described() -> Callable[[Path], Description]:
    return lambda folder: ExportSource.open([str(folder)]).description


def pooled(pooling: Pooling, outputs: Mapping[str, np.ndarray], mask: np.ndarray, *, normalize: bool) -> np.ndarray:
    """Return the sentence embeddings, computed text by text."""
    hidden = outputs["last_hidden_state"].astype(np.float64)
    texts = [row[counts == 1] for row, counts in zip(hidden, mask, strict=True)]
    positions = [1 + np.flatnonzero(counts) for counts in mask]
    rows = {
        Pooling.MEAN: lambda: [text.mean(0) for text in texts],
        Pooling.CLS: lambda: [text[0] for text in texts],
        Pooling.POOLER: lambda: list(outputs["pooler_output"]),
        Pooling.MAX: lambda: [text.max(0) for text in texts],
        Pooling.MEAN_SQRT_LEN: lambda: [text.sum(0) / np.sqrt(len(text)) for text in texts],
        Pooling.WEIGHTED_MEAN: lambda: [
            np.average(text, axis=0, weights=weights) for text, weights in zip(texts, positions, strict=True)
        ],
        Pooling.LAST_TOKEN: lambda: [text[-1] for text in texts],
    }[pooling]()
    return np.array([row / np.linalg.norm(row) if normalize else row for row in rows])


@pytest.mark.parametrize("normalize", [True, False], ids=["normalized", "raw"])
@pytest.mark.parametrize("pooling", Pooling)
@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED, Layout.PADDED])
def test_sentence_embeddings_equal_eager(
    layout: Layout,
    pooling: Pooling,
    normalize: bool,
    encoder_checkpoint: Path,
    authored: Callable[..., Any],
    run_graph: Callable[..., dict[str, np.ndarray]],
    token_cases: Callable[..., Any],
    eager: Callable[..., Any],
) -> None:
    session = authored(encoder_checkpoint, layout, pooling=pooling, normalize=normalize)
    for inputs in token_cases(64, masked=layout is not Layout.EQUAL_LENGTH):
        expected = pooled(pooling, eager(encoder_checkpoint, inputs), inputs["attention_mask"], normalize=normalize)
        embeddings = run_graph(session, inputs)["sentence_embedding"]
        np.testing.assert_allclose(embeddings, expected, rtol=0, atol=LARGEST_ERROR)


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED, Layout.PADDED])
def test_logits_and_pooler_output_equal_eager(
    layout: Layout,
    classifier_checkpoint: Path,
    authored: Callable[..., Any],
    run_graph: Callable[..., dict[str, np.ndarray]],
    token_cases: Callable[..., Any],
    eager: Callable[..., Any],
) -> None:
    session = authored(classifier_checkpoint, layout)
    for inputs in token_cases(64, masked=layout is not Layout.EQUAL_LENGTH):
        expected, outputs = eager(classifier_checkpoint, inputs), run_graph(session, inputs)
        for name in ("logits", "pooler_output"):
            np.testing.assert_allclose(outputs[name], expected[name], rtol=0, atol=LARGEST_ERROR)


def test_a_classifier_has_every_output_with_dynamic_axes(
    classifier_checkpoint: Path, authored: Callable[..., Any]
) -> None:
    session = authored(classifier_checkpoint, Layout.RAGGED)
    assert {node.name: node.shape for node in session.get_outputs()} == {
        "last_hidden_state": ["batch", "sequence", 40],
        "pooler_output": ["batch", 40],
        "sentence_embedding": ["batch", 40],
        "logits": ["batch", 3],
    }


def test_an_encoder_without_pooler_has_no_pooler_output(
    poolerless_checkpoint: Path,
    authored: Callable[..., Any],
    run_graph: Callable[..., dict[str, np.ndarray]],
    token_cases: Callable[..., Any],
    eager: Callable[..., Any],
) -> None:
    session = authored(poolerless_checkpoint, Layout.RAGGED)
    assert [node.name for node in session.get_outputs()] == ["last_hidden_state", "sentence_embedding"]
    for inputs in token_cases(64, masked=True):
        outputs = eager(poolerless_checkpoint, inputs)
        expected = pooled(Pooling.MEAN, outputs, inputs["attention_mask"], normalize=True)
        embeddings = run_graph(session, inputs)["sentence_embedding"]
        np.testing.assert_allclose(embeddings, expected, rtol=0, atol=LARGEST_ERROR)


def test_pooling_by_a_missing_pooler_is_refused(
    poolerless_checkpoint: Path, described: Callable[[Path], Description], refused: Callable[..., None]
) -> None:
    with pytest.raises(CheckpointError, match="no pooler; pool by mean or cls"):
        author(
            described(poolerless_checkpoint),
            Layout.RAGGED,
            embedding=Embedding(pooling=[Pooling.POOLER], normalize=True),
        )
    refused(poolerless_checkpoint, "no pooler", pooling="pooler")


@pytest.mark.parametrize(
    ("output", "unneeded"),
    [
        (LAST_HIDDEN_STATE, {"Tanh", "ReduceSum", "ReduceL2"}),
        (POOLER_OUTPUT, {"ReduceSum", "ReduceL2"}),
        (SENTENCE_EMBEDDING, {"Tanh"}),
        ("logits", {"ReduceSum", "ReduceL2"}),
    ],
)
def test_no_output_depends_on_the_nodes_of_another_output(
    output: str, unneeded: set[str], classifier_checkpoint: Path, described: Callable[[Path], Description]
) -> None:
    embedding = Embedding(pooling=[Pooling.MEAN], normalize=True)
    model = author(described(classifier_checkpoint), Layout.RAGGED, embedding=embedding)
    assert unneeded <= {node.op_type for node in model.graph}
    (value,) = [value for value in model.graph.outputs if value.name == output]
    assert not unneeded & {node.op_type for node in ancestors(value)}


def ancestors(value: ir.Value) -> set[ir.Node]:
    """Return every node that a value depends on."""
    nodes, waiting = set(), [value.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            waiting += [read.producer() for read in node.inputs if read is not None]
    return nodes
