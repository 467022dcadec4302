"""PyTorch module of the next-sentence model with two encoders. It defines the meaning of its checkpoints.

Encoder 1 reads the pair (first, second), encoder 2 reads (second, first). A linear layer on the concatenated pooled
vectors gives the logits.
"""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from encort.export.source.loaded_weights import LoadedWeights
from encort.runtime.common.checkpoints.config import make_config
from encort.runtime.common.errors import CheckpointError

MODEL_TYPE = "dual-encoder-next-sentence"


class DualEncoderConfig(transformers.PretrainedConfig):  # type: ignore[misc] # untyped
    """Settings of both encoders, `encoder1` and `encoder2`, and of the labels."""

    model_type = MODEL_TYPE

    def __init__(self, encoder1: Any = None, encoder2: Any = None, **settings: Any) -> None:
        self.encoder1 = transformers.BertConfig(**(encoder1 or {}))
        self.encoder2 = transformers.BertConfig(**(encoder2 or {}))
        super().__init__(**settings)


class DualEncoderModule(torch.nn.Module):
    """Two encoders and a classifier.

    Its weights are `encoder1.*`, `encoder2.*` and `classifier.*`. The settings of the encoders are `encoder1` and
    `encoder2` in `config.json`.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        options = {"attn_implementation": "eager", "dtype": torch.float32}
        self.encoder1 = transformers.AutoModel.from_config(config.encoder1, **options)
        self.encoder2 = transformers.AutoModel.from_config(config.encoder2, **options)
        width = config.encoder1.hidden_size + config.encoder2.hidden_size
        self.classifier = torch.nn.Linear(width, len(config.id2label))

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        reversed_input_ids: torch.Tensor,
        reversed_token_type_ids: torch.Tensor,
    ) -> torch.Tensor:
        """Return the logits, `(batch, labels)`. Every input is `(batch, sequence)` int64."""
        mask = {"attention_mask": attention_mask}
        first = self.encoder1(input_ids=input_ids, token_type_ids=token_type_ids, **mask)
        second = self.encoder2(input_ids=reversed_input_ids, token_type_ids=reversed_token_type_ids, **mask)
        logits: torch.Tensor = self.classifier(torch.cat([first.pooler_output, second.pooler_output], dim=1))
        return logits


def dual_encoder_config(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Return the settings of both encoders as transformers has them.

    Raises:
        CheckpointError: An encoder is not a BERT, or its settings make no sense.
    """
    for name in ("encoder1", "encoder2"):
        encoder = settings.get(name)
        kind = encoder.get("model_type") if isinstance(encoder, dict) else encoder
        if kind != "bert":
            raise CheckpointError(f"{name} is {kind!r}; a dual encoder needs BERT for both encoders")
    classes = ChainMap({MODEL_TYPE: DualEncoderConfig}, transformers.CONFIG_MAPPING)
    return make_config(str(folder), settings, classes=classes, installed=transformers.__version__)


def load_dual_encoder(files: Sequence[Path], config: Any) -> tuple[DualEncoderModule, LoadedWeights]:
    """Return the model of these weights and settings, and the weights that are missing in the files or left over."""
    model = DualEncoderModule(config)
    tensors = {name: tensor for file in files for name, tensor in load_file(file).items()}
    problems = model.load_state_dict(tensors, strict=False)
    weights = LoadedWeights(missing=problems.missing_keys, mismatched=(), unexpected=problems.unexpected_keys)
    return model, weights
