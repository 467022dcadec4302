from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encort.export.graph.operators import ACTIVATIONS
from encort.runtime.bundle.manifest import Layout

BERTS = {
    "one head": {"hidden_size": 6, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 7},
    "eleven heads": {"hidden_size": 33, "num_attention_heads": 11, "num_hidden_layers": 2, "intermediate_size": 5},
    "five layers": {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 5, "intermediate_size": 130},
    "17 positions": {"max_position_embeddings": 17, "num_hidden_layers": 2},
    "130 positions": {"max_position_embeddings": 130, "num_hidden_layers": 1},
    **{activation: {"hidden_act": activation} for activation in ACTIVATIONS if activation != "gelu"},
    # The variance of embeddings this small is near epsilon, so that a wrong epsilon shows.
    "epsilon 1e-5": {"layer_norm_eps": 1e-5, "initializer_range": 3e-3},
    "epsilon 1e-12": {"layer_norm_eps": 1e-12, "initializer_range": 3e-3},
    "one token type": {"type_vocab_size": 1},
}
LARGEST_ERROR = 5e-5


@pytest.fixture(scope="session", params=BERTS.values(), ids=BERTS)
def bert(request: pytest.FixtureRequest, make_checkpoint: Callable[..., Path]) -> tuple[Path, dict[str, Any]]:
    return make_checkpoint(seed=3, **request.param), request.param


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_hidden_states_equal_eager_at_every_shape(
    bert: tuple[Path, dict[str, Any]],
    masked: bool,
    authored: Callable[..., Any],
    run_graph: Callable[..., dict[str, np.ndarray]],
    token_cases: Callable[..., Any],
    eager: Callable[..., Any],
) -> None:
    folder, sizes = bert
    limit, types = sizes.get("max_position_embeddings", 64), sizes.get("type_vocab_size", 2)
    sessions = [
        authored(folder, layout)
        for layout in (Layout.EQUAL_LENGTH, Layout.RAGGED, Layout.PADDED)
        if layout is not Layout.EQUAL_LENGTH or not masked
    ]
    for inputs in token_cases(limit, masked=masked, types=types):
        counted = inputs["attention_mask"] == 1
        expected = eager(folder, inputs)["last_hidden_state"][counted]
        for session in sessions:
            hidden = run_graph(session, inputs)["last_hidden_state"][counted]
            np.testing.assert_allclose(hidden, expected, rtol=0, atol=LARGEST_ERROR)


def test_a_mask_of_ones_equals_no_mask(
    encoder_checkpoint: Path,
    authored: Callable[..., Any],
    run_graph: Callable[..., dict[str, np.ndarray]],
    token_cases: Callable[..., Any],
) -> None:
    padded, equal_length = (authored(encoder_checkpoint, layout) for layout in (Layout.RAGGED, Layout.EQUAL_LENGTH))
    for inputs in token_cases(64, masked=False):
        with_mask, without = run_graph(padded, inputs), run_graph(equal_length, inputs)
        for name, array in without.items():
            np.testing.assert_allclose(with_mask[name], array, rtol=0, atol=1e-5)


def test_the_id_of_a_masked_token_changes_nothing(
    encoder_checkpoint: Path, authored: Callable[..., Any], run_graph: Callable[..., dict[str, np.ndarray]]
) -> None:
    session, random = authored(encoder_checkpoint, Layout.RAGGED), np.random.default_rng(0)
    ids, other_ids = random.integers(0, 100, (2, 4, 9))
    mask = random.integers(0, 2, ids.shape)
    mask[:, 0] = 1
    inputs = {"input_ids": ids, "token_type_ids": np.zeros_like(ids), "attention_mask": mask}
    one = run_graph(session, inputs)
    other = run_graph(session, inputs | {"input_ids": np.where(mask == 1, ids, other_ids)})
    np.testing.assert_array_equal(one["sentence_embedding"], other["sentence_embedding"])
    np.testing.assert_array_equal(one["last_hidden_state"][mask == 1], other["last_hidden_state"][mask == 1])


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED])
def test_batch_and_sequence_are_dynamic(encoder_checkpoint: Path, authored: Callable[..., Any], layout: Layout) -> None:
    session = authored(encoder_checkpoint, layout)
    names = ["input_ids", "token_type_ids", *(["attention_mask"] if layout is not Layout.EQUAL_LENGTH else [])]
    axes = {node.name: node.shape for node in session.get_inputs()}
    assert axes == {name: ["batch", "sequence"] for name in names}
    assert {node.type for node in session.get_inputs()} == {"tensor(int64)"}


@pytest.mark.parametrize("activation", ["quick_gelu", "mish", "gelu_10", "leaky_relu"])
def test_an_unknown_activation_is_refused_with_the_known_ones(
    activation: str, make_checkpoint: Callable[..., Path], refused: Callable[..., None]
) -> None:
    refused(make_checkpoint(hidden_act=activation), f"activation '{activation}'.*knows: {', '.join(ACTIVATIONS)}")
