"""The next-sentence model of two encoders: one reads (first, second), the other reads (second, first)."""

from typing import Any, Self

import torch
import transformers
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import SequenceClassifierOutput


class DualEncoderConfig(transformers.PretrainedConfig):  # type: ignore[misc] # untyped
    """Settings of two BERTs, `encoder1` and `encoder2`, and of the labels."""

    model_type = "dual-encoder-next-sentence"

    def __init__(
        self, encoder1: dict[str, Any] | None = None, encoder2: dict[str, Any] | None = None, **settings: Any
    ) -> None:
        self.encoder1 = transformers.BertConfig(**(encoder1 or {}))
        self.encoder2 = transformers.BertConfig(**(encoder2 or encoder1 or {}))
        super().__init__(**settings)

    @property
    def hidden_size(self) -> int:
        """Width of one encoder, under the name that settings of a single encoder have."""
        return int(self.encoder1.hidden_size)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as `config.json` holds them, those of both encoders inside."""
        encoders = {"encoder1": self.encoder1.to_dict(), "encoder2": self.encoder2.to_dict()}
        return {**super().to_dict(), **encoders}


class DualEncoderForNextSentence(transformers.PreTrainedModel):  # type: ignore[misc] # untyped
    """Two encoders and a linear layer from their pooled vectors, side by side `(batch, 2 * hidden)`, to two logits.

    A checkpoint has the weights `encoder1.*`, `encoder2.*` and `classifier.*`; `encort export` makes one graph of it.
    """

    config_class = DualEncoderConfig

    def __init__(self, config: DualEncoderConfig) -> None:
        super().__init__(config)
        self.encoder1 = transformers.BertModel(config.encoder1)
        self.encoder2 = transformers.BertModel(config.encoder2)
        self.classifier = torch.nn.Linear(config.encoder1.hidden_size + config.encoder2.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def from_encoder(cls, encoder: transformers.BertModel, **settings: Any) -> Self:
        """Make a model whose encoders both start with the weights of a pretrained BERT; the linear layer is new."""
        model = cls(DualEncoderConfig(encoder.config.to_dict(), **settings))
        for part in (model.encoder1, model.encoder2):
            part.load_state_dict(encoder.state_dict())
        return model

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Initialize the linear layer; each encoder has initialized itself."""
        if module is self.classifier:
            self.classifier.weight.data.normal_(0.0, self.config.encoder1.initializer_range)
            self.classifier.bias.data.zero_()

    def forward(
        self,
        input_ids: torch.Tensor,
        token_type_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        reversed_input_ids: torch.Tensor,
        reversed_token_type_ids: torch.Tensor,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Return the logits, `(batch, 2)` float32, and with labels the loss.

        Args:
            input_ids: Tokens of (first, second), `(batch, sequence)` int64.
            token_type_ids: Types of these tokens, `(batch, sequence)` int64.
            attention_mask: Mask for both orders, `(batch, sequence)` int64: a pair has as many tokens in either order.
            reversed_input_ids: Tokens of (second, first), `(batch, sequence)` int64.
            reversed_token_type_ids: Types of these tokens, `(batch, sequence)` int64.
            labels: `(batch,)` int64; the loss ignores those below 0.
        """
        first = self.encoder1(input_ids, attention_mask, token_type_ids).pooler_output
        second = self.encoder2(reversed_input_ids, attention_mask, reversed_token_type_ids).pooler_output
        logits = self.classifier(torch.cat([first, second], dim=1))
        loss = None if labels is None else _mean_loss(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def _mean_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean over the known labels; 0 if there is none, where torch's own mean is NaN."""
    total = cross_entropy(logits, labels.clamp(min=-1), ignore_index=-1, reduction="sum")
    return total / (labels >= 0).sum().clamp(min=1)


def encoder_configs(config: Any) -> list[Any]:
    """Return the settings of each encoder of a checkpoint."""
    return [config.encoder1, config.encoder2] if isinstance(config, DualEncoderConfig) else [config]


transformers.AutoConfig.register(DualEncoderConfig.model_type, DualEncoderConfig, exist_ok=True)
transformers.AutoModelForNextSentencePrediction.register(DualEncoderConfig, DualEncoderForNextSentence, exist_ok=True)
