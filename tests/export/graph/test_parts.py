"""Parts of a layer that post-norm encoders lack, against eager transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers

from encort.export.graph.architectures import describe_encoder
from encort.export.graph.description import Description
from encort.export.graph.float16 import to_float16
from encort.export.graph.heads import author
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling
from encort.runtime.common.errors import CheckpointError

SIZES = {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 70}
SETTINGS: dict[str, dict[str, Any]] = {
    "ModernBert": {"intermediate_size": 40, "local_attention": 6, "cls_token_id": 1, "sep_token_id": 2},
    "EuroBert": {"intermediate_size": 40, "num_key_value_heads": 2},
}


def config(name: str, **settings: Any) -> Any:
    """Return the configuration of a small encoder."""
    return getattr(transformers, f"{name}Config")(**{**SIZES, **IDS, **SETTINGS[name], **settings})


def described(config: Any) -> tuple[Any, Description]:
    """Return an encoder with random norms, and its description."""
    torch.manual_seed(4)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return model, Description(encoders=(describe_encoder(config, weights),), heads=())


@pytest.fixture(params=[name for name in SETTINGS if hasattr(transformers, f"{name}Config")])
def encoder(request: pytest.FixtureRequest) -> tuple[Any, Description]:
    """An encoder and its description."""
    return described(config(request.param, initializer_range=0.3))


def check(model: Any, description: Description, layout: Layout, lengths: Sequence[int]) -> None:
    """Compare hidden states with eager transformers, for whole texts, and for padded ones where the layout has such."""
    graph = author(description, layout, embedding=Embedding(pooling=[Pooling.MEAN], normalize=True))
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    for length in lengths:
        ids = np.random.default_rng(length).integers(3, 90, (3, length))
        mask = np.ones_like(ids)
        masks = [mask]
        if layout is not Layout.EQUAL_LENGTH:
            ends = np.array([[length], [length // 2 + 1], [1]])
            masks += [(np.arange(length) < ends).astype(np.int64)]
        for mask in masks:
            tensors = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            with torch.inference_mode():
                expected = model(**tensors).last_hidden_state.numpy()
            inputs = {"input_ids": ids, "attention_mask": mask}
            hidden = session.run(
                ["last_hidden_state"], {node.name: inputs[node.name] for node in session.get_inputs()}
            )[0]
            np.testing.assert_allclose(hidden[mask == 1], expected[mask == 1], rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED, Layout.PADDED])
def test_pre_norm_layers_equal_eager(encoder: tuple[Any, Description], layout: Layout) -> None:
    check(*encoder, layout, lengths=(1, 2, 17, 70))


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED])
@pytest.mark.parametrize("local_attention", [1, 2, 11, 40, 200])
def test_windows_of_any_size_equal_eager(local_attention: int, layout: Layout) -> None:
    size = local_attention // 2
    encoder = described(config("ModernBert", local_attention=local_attention, initializer_range=0.3))
    # Around the length from which texts are cut into blocks, and around whole blocks.
    lengths = {1, size, size + 1, 2 * size + 1, 3 * size, 3 * size + 1, 4 * size - 1, 69, 70}
    check(*encoder, layout, lengths=sorted(length for length in lengths if 0 < length <= 70))


def test_a_part_that_layers_share_stays_shared_in_half_precision(encoder: tuple[Any, Description]) -> None:
    (half,) = to_float16(encoder[1]).encoders
    assert half.layers[1].attention.positions is half.layers[2].attention.positions


@pytest.mark.skipif(not hasattr(transformers.ModernBertConfig(), "rope_parameters"), reason="it scales no positions")
@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_rotary_positions_that_scale_with_the_text_are_refused(kind: str) -> None:
    scaled = {kind: {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}}
    with pytest.raises(CheckpointError, match=r"modernbert with rope_type='dynamic' has no authored graph"):
        described(config("ModernBert", rope_parameters=scaled))


def test_an_unknown_pooling_of_a_classifier_is_refused() -> None:
    settings = config("ModernBert")
    object.__setattr__(settings, "classifier_pooling", "last")
    with pytest.raises(CheckpointError, match=r"classifier_pooling='last'.*encort authors: cls, mean"):
        described(settings)
