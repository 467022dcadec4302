"""Parts of a layer that post-norm encoders lack, against eager transformers."""

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import torch
import transformers

from encort.export.graph.architectures.reader import EncoderReader
from encort.export.graph.architectures.table import Architecture, HeadNames
from encort.export.graph.description import Description, NormPlacement, Part, Reads
from encort.export.graph.float16 import to_float16
from encort.export.graph.heads import author
from encort.runtime.bundle.manifest import Embedding, Layout, Pooling

LAYERS, SIZES = 3, {"vocab_size": 90, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6}
CLASSIFIER = HeadNames(reads=Reads.FIRST_TOKEN, logits="classifier")
PRE_NORM = {"positions": None, "types": None, "layer": "layers.{}.", "pooler": None, "placement": NormPlacement.PRE}
WINDOW = 3
MODERNBERT = Architecture(
    **PRE_NORM,
    prefix="model.",
    words="embeddings.tok_embeddings",
    embedding_norm="embeddings.norm",
    query=Part("attn.Wqkv", 0, 3),
    key=Part("attn.Wqkv", 1, 3),
    value=Part("attn.Wqkv", 2, 3),
    attention_output="attn.Wo",
    attention_norm="attn_norm",
    intermediate=Part("mlp.Wi", 0, 2),
    gate=Part("mlp.Wi", 1, 2),
    output="mlp.Wo",
    output_norm="mlp_norm",
    final_norm="final_norm",
    classifier=CLASSIFIER,
    activation="gelu",
    epsilon=1e-5,
    has_first_norm=False,
    rotary_bases=[160_000.0, 10_000.0, 10_000.0],
    windows=[None, WINDOW, WINDOW],
)
EUROBERT = Architecture(
    **PRE_NORM,
    prefix="model.",
    words="embed_tokens",
    embedding_norm=None,
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    attention_output="self_attn.o_proj",
    attention_norm="input_layernorm",
    intermediate="mlp.gate_proj",
    gate="mlp.up_proj",
    output="mlp.down_proj",
    output_norm="post_attention_layernorm",
    final_norm="norm",
    classifier=CLASSIFIER,
    activation="silu",
    epsilon=1e-5,
    is_rms=True,
    rotary_bases=[10_000.0] * LAYERS,
)
SETTINGS = {
    "ModernBert": (MODERNBERT, {"intermediate_size": 40, "local_attention": 2 * WINDOW}),
    "EuroBert": (EUROBERT, {"intermediate_size": 40, "num_key_value_heads": 2, "rms_norm_eps": 1e-5}),
}


@pytest.fixture(params=[name for name in SETTINGS if hasattr(transformers, f"{name}Config")])
def encoder(request: pytest.FixtureRequest) -> tuple[Any, Description]:
    """An encoder with random norms, and its description by a table."""
    table, settings = SETTINGS[request.param]
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 70}
    if request.param == "ModernBert":
        ids |= {"cls_token_id": 1, "sep_token_id": 2}
    config = getattr(transformers, f"{request.param}Config")(**SIZES, **settings, **ids, initializer_range=0.3)
    torch.manual_seed(4)
    model = transformers.AutoModel.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.2)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return model, Description(encoders=(EncoderReader(table, weights, "", config).encoder(),), heads=())


@pytest.mark.parametrize("layout", [Layout.EQUAL_LENGTH, Layout.RAGGED, Layout.PADDED])
def test_pre_norm_layers_equal_eager(encoder: tuple[Any, Description], layout: Layout) -> None:
    model, description = encoder
    graph = author(description, layout, embedding=Embedding(pooling=[Pooling.MEAN], normalize=True))
    session = onnxruntime.InferenceSession(ir.to_proto(graph).SerializeToString())
    for length in (1, 2, 17, 70):
        ids = np.random.default_rng(length).integers(3, 90, (2, length))
        mask = np.ones_like(ids)
        if layout is not Layout.EQUAL_LENGTH:
            mask[1, length // 2 + 1 :] = 0
        with torch.inference_mode():
            expected = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()
        inputs = {"input_ids": ids, "attention_mask": mask}
        wanted = {node.name: inputs[node.name] for node in session.get_inputs()}
        hidden = session.run(["last_hidden_state"], wanted)[0]
        np.testing.assert_allclose(hidden[mask == 1], expected[mask == 1], rtol=0, atol=1e-4)


def test_a_part_that_layers_share_stays_shared_in_half_precision(encoder: tuple[Any, Description]) -> None:
    (half,) = to_float16(encoder[1]).encoders
    assert half.layers[1].attention.positions is half.layers[2].attention.positions
