"""PyTorch module of the next-sentence model with two encoders. It defines the meaning of its checkpoints.

Encoder 1 reads the pair (first, second), encoder 2 reads (second, first). A linear layer on the concatenated pooled
vectors gives the logits.
"""

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from encort.export.source.loaded_weights import LoadedWeights
from encort.runtime.common.errors import CheckpointError

MODEL_TYPE = "dual-encoder-next-sentence"


class DualEncoderModule(torch.nn.Module):
    """Two encoders and a classifier.

    Its weights are `encoder1.*`, `encoder2.*` and `classifier.*`. The settings of the encoders are `encoder1` and
    `encoder2` in `config.json`.
    """

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
        """Return the logits, `(batch, labels)`. Every input is `(batch, sequence)` int64."""
        mask = {"attention_mask": attention_mask}
        first = self.encoder1(input_ids=input_ids, token_type_ids=token_type_ids, **mask)
        second = self.encoder2(input_ids=reversed_input_ids, token_type_ids=reversed_token_type_ids, **mask)
        logits: torch.Tensor = self.classifier(torch.cat([first.pooler_output, second.pooler_output], dim=1))
        return logits


def load_dual_encoder(folder: Path, config: dict[str, Any]) -> tuple[DualEncoderModule, LoadedWeights]:
    """Load the model of a folder.

    Returns:
        The model, and the weights that are missing in the folder or unknown to the model.

    Raises:
        CheckpointError: An encoder is not a BERT.
    """
    settings = transformers.PretrainedConfig(**config)
    for name in ("encoder1", "encoder2"):
        plain = dict(config[name])
        if plain.get("model_type") != "bert":
            raise CheckpointError(f"{name} is {plain.get('model_type')!r}; a dual encoder needs BERT for both encoders")
        setattr(settings, name, transformers.AutoConfig.for_model(plain.pop("model_type"), **plain))
    model = DualEncoderModule(settings)
    tensors = {
        name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()
    }
    problems = model.load_state_dict(tensors, strict=False)
    weights = LoadedWeights(missing=problems.missing_keys, mismatched=(), unexpected=problems.unexpected_keys)
    return model, weights
