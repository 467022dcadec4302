from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from encort.export.graph.architectures import ARCHITECTURES, describe_encoder
from encort.export.graph.description import AttentionHeads
from encort.export.source.export_source import ExportSource
from encort.runtime.common.errors import CheckpointError

OTHER_ARCHITECTURES = ["GPT2", "T5", "RoFormer", "RemBert"]


def arrays(description: Any) -> list[np.ndarray]:
    """Return every array in a description, in order."""
    if isinstance(description, np.ndarray):
        return [description]
    if isinstance(description, tuple):
        return [array for part in description for array in arrays(part)]
    if is_dataclass(description):
        return [array for field in fields(description) for array in arrays(getattr(description, field.name))]
    return []


@pytest.fixture(scope="session")
def encoder(encoder_checkpoint: Path) -> ExportSource:
    return ExportSource.open([str(encoder_checkpoint)])


@pytest.fixture(scope="session")
def classifier(classifier_checkpoint: Path) -> ExportSource:
    return ExportSource.open([str(classifier_checkpoint)])


@pytest.mark.parametrize("name", ["encoder", "classifier"])
def test_every_parameter_is_in_the_description(name: str, request: pytest.FixtureRequest) -> None:
    source = request.getfixturevalue(name)
    # BERT's classifier reads the pooler, which is described in the encoder and in the head. It counts once here.
    parts = (source.description.encoders, *(head.logits for head in source.description.heads))
    described = arrays(parts)
    parameters = [parameter.detach().numpy() for parameter in source.checkpoints[0].model.parameters()]
    assert sorted(array.size for array in described) == sorted(array.size for array in parameters)
    assert sum(float(array.sum()) for array in described) == pytest.approx(
        sum(float(array.sum()) for array in parameters), rel=1e-4
    )


def test_the_classifier_of_bert_reads_the_pooler(classifier: ExportSource) -> None:
    (encoder,), (head,) = classifier.description.encoders, classifier.description.heads
    for one, other in zip(arrays(head.dense), arrays(encoder.pooler), strict=True):
        np.testing.assert_array_equal(one, other)


def test_linear_weights_are_in_by_out(encoder: ExportSource) -> None:
    layer = encoder.description.encoders[0].layers[0]
    assert layer.feed_forward.intermediate.weight.shape == (40, 72)
    np.testing.assert_array_equal(
        layer.attention.query.weight,
        encoder.checkpoints[0].weights["encoder.layer.0.attention.self.query.weight"].T,
        strict=True,
    )


def test_a_head_changes_nothing_about_the_encoder_below_it(classifier: ExportSource) -> None:
    (checkpoint,) = classifier.checkpoints
    bare = {name.removeprefix("bert."): array for name, array in checkpoint.weights.items()}
    with_head = describe_encoder(checkpoint.model.config, checkpoint.weights)
    alone = describe_encoder(checkpoint.model.config, {name: bare[name] for name in bare if "classifier" not in name})
    for one, other in zip(arrays(alone), arrays(with_head), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_classifier_has_a_head_and_an_encoder_has_none(classifier: ExportSource, encoder: ExportSource) -> None:
    assert [head.outputs for head in classifier.description.heads] == [("logits",)]
    assert encoder.description.heads == ()


def test_sizes_and_settings_come_from_the_configuration(make_checkpoint: Callable[..., Path]) -> None:
    folder = make_checkpoint(num_hidden_layers=2, num_attention_heads=4, hidden_act="relu", layer_norm_eps=1e-5)
    (encoder,) = ExportSource.open([str(folder)]).description.encoders
    assert len(encoder.layers) == 2
    assert encoder.layers[0].attention.heads == AttentionHeads(count=4, size=10, groups=4)
    assert encoder.layers[0].feed_forward.activation == "relu"
    assert encoder.embeddings.norm.epsilon == encoder.layers[1].output_norm.epsilon == 1e-5


@pytest.mark.parametrize("name", OTHER_ARCHITECTURES)
def test_an_unknown_architecture_is_refused_with_the_known_ones(name: str) -> None:
    config = getattr(transformers, f"{name}Config")()
    with pytest.raises(CheckpointError, match=rf"'{config.model_type}'.*knows: {', '.join(ARCHITECTURES)}"):
        describe_encoder(config, {})


@pytest.mark.parametrize("positions", ["relative_key", "relative_key_query"])
def test_relative_positions_are_refused(positions: str) -> None:
    with pytest.raises(CheckpointError, match="only bert encoders with absolute positions"):
        describe_encoder(transformers.BertConfig(position_embedding_type=positions), {})


def test_layers_that_share_their_weights_are_one_layer() -> None:
    config = transformers.AlbertConfig(
        vocab_size=11,
        embedding_size=8,
        hidden_size=12,
        intermediate_size=16,
        num_attention_heads=3,
        num_hidden_layers=5,
        num_hidden_groups=2,
        inner_group_num=2,
    )
    model = transformers.AlbertModel(config)
    encoder = describe_encoder(config, {name: weight.numpy() for name, weight in model.state_dict().items()})
    numbers = {layer: number for number, layer in enumerate(dict.fromkeys(encoder.layers))}
    # Three of five runs belong to the first group.
    assert [numbers[layer] for layer in encoder.layers] == [0, 1, 0, 1, 0, 1, 2, 3, 2, 3]
    described = arrays(replace(encoder, layers=tuple(numbers)))
    assert sum(array.size for array in described) == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    "setting",
    [
        {"conv_kernel_size": 3},
        {"embedding_size": 8},
        {"attention_head_size": 8},
        {"relative_attention": False},
        {"pos_att_type": None},
    ],
    ids=str,
)
def test_settings_of_other_debertas_are_refused_by_name(setting: dict[str, Any]) -> None:
    settings: dict[str, Any] = {
        "vocab_size": 11,
        "hidden_size": 12,
        "intermediate_size": 16,
        "num_attention_heads": 3,
        "num_hidden_layers": 1,
        "relative_attention": True,
        "pos_att_type": ["c2p"],
    }
    config = transformers.DebertaV2Config(**{**settings, **setting})
    model = transformers.DebertaV2Model(config)
    with pytest.raises(CheckpointError, match=f"deberta-v2 with {next(iter(setting))}="):
        describe_encoder(config, {name: weight.numpy() for name, weight in model.state_dict().items()})
