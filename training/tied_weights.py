"""A network around a masked language model, whose word embeddings may be weights of its head too."""

from typing import Any

import torch


class WordNetwork(torch.nn.Module):
    """A network around a model that predicts words; its tied weights are saved once.

    Attributes:
        model: Masked language model of transformers.
        config: Settings of the model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:  # type: ignore[override] # as torch writes it
        """Return the weights by name. Tied weights, which a file of safetensors cannot hold twice, are there once."""
        own = {name for name, _ in (*self.named_parameters(), *self.named_buffers())}
        return {name: weight for name, weight in super().state_dict(*args, **options).items() if name in own}

    @property
    def _keys_to_ignore_on_save(self) -> list[str]:
        """Names of tied weights. The trainer of transformers expects them to be missing in a saved state."""
        return [*(super().state_dict().keys() - self.state_dict().keys())]

    def tie_weights(self) -> None:
        """Tie the weights of the model; the trainer of transformers calls this after it has loaded a state."""
        self.model.tie_weights()
