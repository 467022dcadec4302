"""The next-sentence model of two encoders, in PyTorch: what its checkpoints mean.

Encoder 1 reads (first, second), encoder 2 reads (second, first); a linear layer on both pooled vectors, side by
side, gives the logits.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from encort.runtime.common.errors import CheckpointError

MODEL_TYPE = "dual-encoder-next-sentence"


class DualEncoderModule(torch.nn.Module):
    """Weights `encoder1.*`, `encoder2.*`, `classifier.*`; settings of the encoders in `encoder1`, `encoder2`."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.encoder1 = transformers.AutoModel.from_config(config.encoder1, attn_implementation="eager")
        self.encoder2 = transformers.AutoModel.from_config(config.encoder2, attn_implementation="eager")
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
        """Logits, `(batch, labels)`; all inputs are `(batch, sequence)` int64."""
        mask = {"attention_mask": attention_mask}
        first = self.encoder1(input_ids=input_ids, token_type_ids=token_type_ids, **mask)
        second = self.encoder2(input_ids=reversed_input_ids, token_type_ids=reversed_token_type_ids, **mask)
        logits: torch.Tensor = self.classifier(torch.cat([first.pooler_output, second.pooler_output], dim=1))
        return logits


def load_dual_encoder(folder: Path, config: dict[str, Any]) -> tuple[DualEncoderModule, list[str]]:
    """The model of a folder, and the names of weights that the folder lacks or has too many of."""
    settings = transformers.PretrainedConfig(**config)
    for name in ("encoder1", "encoder2"):
        plain = dict(config[name])
        if plain.get("model_type") != "bert":
            raise CheckpointError(f"{name} is {plain.get('model_type')!r}; a model of two encoders needs BERT in both")
        setattr(settings, name, transformers.AutoConfig.for_model(plain.pop("model_type"), **plain))
    model = DualEncoderModule(settings)
    weights = {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
    problems = model.load_state_dict(weights, strict=False)
    return model, [*problems.missing_keys, *problems.unexpected_keys]
