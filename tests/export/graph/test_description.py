from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from encort.export.graph.architectures import describe_encoder
from encort.export.graph.description import Encoder
from encort.export.source.checkpoint import Checkpoint


@pytest.fixture
def encoder(encoder_checkpoint: Path) -> Encoder:
    checkpoint = Checkpoint.open(str(encoder_checkpoint))
    return describe_encoder(checkpoint.model.config, checkpoint.weights)


def test_hidden_is_the_width_of_every_token(encoder: Encoder) -> None:
    assert encoder.hidden == 40 == encoder.embeddings.norm.weight.size


def test_a_description_cannot_be_changed(encoder: Encoder) -> None:
    with pytest.raises(FrozenInstanceError):
        encoder.max_length = 1
