"""Positions that a network can read, counted by running it."""

from typing import Any

import pytest
import torch
import transformers

from encort.runtime.common.checkpoints.positions import count_positions, padding_position
from encort.runtime.common.errors import CheckpointError

SIZES = {"hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 48}
ARCHITECTURES = (
    *("albert", "bert", "camembert", "convbert", "data2vec-text", "deberta", "distilbert", "electra", "ernie"),
    *("ibert", "luke", "markuplm", "megatron-bert", "mpnet", "nystromformer", "rembert", "roberta"),
    *("roberta-prelayernorm", "roformer", "xlm-roberta", "xlm-roberta-xl", "lilt"),
)


def network(architecture: str, **settings: Any) -> Any:
    sizes = {**SIZES, "vocab_size": 60, "max_position_embeddings": 34, "embedding_size": 24, "pad_token_id": 1}
    return transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(architecture, **{**sizes, **settings}), attn_implementation="eager"
    ).eval()


def reads(model: Any, tokens: int) -> bool:
    try:
        model(input_ids=torch.full((1, tokens), 7))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("padding", [0, 1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_as_many_tokens_have_a_position_as_the_network_can_read(architecture: str, padding: int) -> None:
    model = network(architecture, pad_token_id=padding)
    positions = count_positions(model.config)
    assert positions is not None
    assert reads(model, positions)
    assert not reads(model, positions + 1)


def test_an_architecture_without_a_limit_has_none() -> None:
    config = transformers.T5Config()
    assert count_positions(config) is None
    assert padding_position(config) is None


def test_positions_after_a_padding_token_need_one() -> None:
    with pytest.raises(CheckpointError, match="no pad_token_id, after which roberta counts positions"):
        count_positions(transformers.RobertaConfig(pad_token_id=None))
