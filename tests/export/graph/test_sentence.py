from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch

from encort.export.graph.builder import GraphBuilder
from encort.export.graph.description import Dense, Linear, SentenceModule, UnitNorm
from encort.export.graph.layouts import ATTENTION_LAYOUTS
from encort.export.graph.sentence import ACTIVATIONS, Encoded, sentence_output
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling

RANDOM = np.random.default_rng(3)
HIDDEN = RANDOM.normal(size=(4, 6, 5)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]])
PROMPTS = np.array([2, 0, 1, 2])
"""Numbers of tokens that are left out; the last row is left with nothing."""
PADDED_IN_FRONT = np.array([[1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]])


def sentence(
    folder: Path,
    pooling: Sequence[Pooling] = (Pooling.CLS,),
    modules: Sequence[SentenceModule] = (),
    layout: Layout = Layout.RAGGED,
    prompts: np.ndarray | None = None,
    mask: np.ndarray = MASK,
) -> np.ndarray:
    """Run a graph that reads hidden states in place of an encoder."""
    builder = GraphBuilder("sentence")
    ids = builder.input("input_ids", ir.DataType.INT64, ("batch", "sequence"))
    hidden = builder.input("hidden", ir.DataType.FLOAT, ("batch", "sequence", "5"))
    embedding = Embedding(pooling=list(pooling), normalize=False, include_prompt=prompts is None)
    encoded = Encoded(hidden, None, ATTENTION_LAYOUTS[layout](builder, ids))
    sentence_output(builder, encoded, embedding, modules, 5)
    ir.save(builder.model(), folder / "model.onnx")
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    inputs = {"input_ids": mask, "hidden": HIDDEN, "attention_mask": mask, "prompt_length": prompts}
    return session.run(None, {node.name: inputs[node.name] for node in session.get_inputs()})[0]


def random_linear(name: str) -> Linear:
    weight = RANDOM.normal(size=(5, 5)).astype(np.float32)
    return Linear(name=name, weight=weight, bias=RANDOM.normal(size=5).astype(np.float32))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_those_of_torch(activation: str, tmp_path: Path) -> None:
    layer = random_linear("layer")
    found = sentence(tmp_path, modules=[Dense(linear=layer, activation=activation)])
    expected = getattr(torch.nn, activation)()(torch.from_numpy(HIDDEN[:, 0] @ layer.weight + layer.bias))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6, atol=1e-6)


def test_the_input_of_a_layer_is_added_after_its_projection(tmp_path: Path) -> None:
    layer, projection = random_linear("layer"), random_linear("projection")
    dense = Dense(linear=layer, activation="ReLU", adds_input=True, projection=projection)
    x = HIDDEN[:, 0]
    expected = np.maximum(x @ layer.weight + layer.bias, 0) + x @ projection.weight + projection.bias
    np.testing.assert_allclose(sentence(tmp_path, modules=[dense]), expected, rtol=0, atol=1e-5)


def test_a_vector_of_zeros_stays_zero(tmp_path: Path) -> None:
    zero = Linear(name="zero", weight=np.zeros((5, 5), np.float32), bias=np.zeros(5, np.float32))
    modules = [Dense(linear=zero, activation="Identity"), UnitNorm()]
    assert not sentence(tmp_path, modules=modules).any()


@pytest.mark.parametrize("pooling", [pooling for pooling in Pooling if pooling is not Pooling.POOLER])
@pytest.mark.parametrize(
    ("layout", "mask"),
    [
        (Layout.RAGGED, MASK),
        (Layout.PADDED, MASK),
        (Layout.PADDED, PADDED_IN_FRONT),
        (Layout.EQUAL_LENGTH, np.ones_like(MASK)),
    ],
    ids=["ragged", "padded", "padded in front", "equal length"],
)
@pytest.mark.parametrize("include_prompt", [False, True])
def test_poolings_are_those_of_sentence_transformers(
    layout: Layout, mask: np.ndarray, pooling: Pooling, tmp_path: Path, *, include_prompt: bool
) -> None:
    pytest.importorskip("sentence_transformers", minversion="6")
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    if include_prompt and pooling is Pooling.CLS and mask is PADDED_IN_FRONT:
        pytest.skip("it is the first column, as in transformers")
    pool = modules.Pooling(5, pooling.value, include_prompt=include_prompt)
    found = sentence(tmp_path, [pooling], layout=layout, prompts=None if include_prompt else PROMPTS, mask=mask)
    for row, prompt in enumerate(PROMPTS):
        features = {
            "token_embeddings": torch.from_numpy(HIDDEN[row : row + 1]),
            "attention_mask": torch.from_numpy(mask[row : row + 1]),
            "prompt_length": int(prompt),
        }
        expected = pool(features)["sentence_embedding"][0].numpy()
        expected[np.isneginf(expected)] = -1e9  # the largest value of no tokens
        np.testing.assert_allclose(found[row], expected, rtol=0, atol=1e-6)
