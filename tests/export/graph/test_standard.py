"""Graphs in standard operators, for libraries that know nothing of encort."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from encort.export.graph.heads import author
from encort.export.source.export_source import ExportSource
from encort.runtime.bundle.manifest import Layout, Pooling

IDS = np.random.default_rng(0).integers(0, 100, (3, 9))
INPUTS = {"input_ids": IDS, "token_type_ids": IDS % 2, "attention_mask": (np.arange(9) < [[9], [4], [0]]).astype(int)}


@pytest.fixture(scope="module")
def source(encoder_checkpoint: Path) -> ExportSource:
    return ExportSource.open([str(encoder_checkpoint)])


@pytest.fixture(scope="module")
def embed(source: ExportSource) -> Callable[..., np.ndarray]:
    """`embed(inputs, pooling=..., ...)` returns the sentence embeddings of a padded graph with these settings."""

    def run(inputs: dict[str, np.ndarray], **settings: object) -> np.ndarray:
        assert source.embedding is not None
        assert source.description is not None
        model = author(source.description, Layout.PADDED, embedding=replace(source.embedding, **settings))
        onnx.checker.check_model(serialized := ir.to_proto(model).SerializeToString(), full_check=True)
        assert set(model.graph.opset_imports) == {""}
        session = onnxruntime.InferenceSession(serialized, providers=["CPUExecutionProvider"])
        return session.run(["sentence_embedding"], inputs)[0]

    return run


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("pooling", Pooling)
def test_embeddings_of_a_row_without_tokens_are_finite(
    embed: Callable[..., np.ndarray], pooling: Pooling, *, normalize: bool
) -> None:
    assert np.isfinite(embed(INPUTS, pooling=[pooling], normalize=normalize)).all()


@pytest.mark.parametrize("pooling", [Pooling.MEAN, Pooling.CLS, Pooling.LAST_TOKEN, Pooling.MAX])
def test_the_length_of_a_prompt_may_be_left_out(embed: Callable[..., np.ndarray], pooling: Pooling) -> None:
    settings = {"pooling": [pooling], "include_prompt": False}
    lengths = {number: {"prompt_length": np.full(3, number)} for number in (0, 2)}
    left_out, none, two = (embed(INPUTS | given, **settings) for given in ({}, lengths[0], lengths[2]))
    np.testing.assert_array_equal(left_out, none)
    assert (np.abs(two - none)[:2].max() > 0.01) == (pooling is not Pooling.LAST_TOKEN)
