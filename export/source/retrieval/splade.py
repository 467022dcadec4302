"""Read SPLADE: a `SparseEncoder` of sentence-transformers, whose weights come from the logits of all words."""

from dataclasses import dataclass
from pathlib import Path

import torch

from encort.export.source.embedding.module_list import splade_folder
from encort.runtime.common.checkpoints.files import read_json
from encort.runtime.common.errors import CheckpointError

_LOGARITHMS = {"relu": 1, "log1p_relu": 2}
_POOLINGS = ("max", "sum")


@dataclass(frozen=True, kw_only=True)
class SpladePooling:
    """The way in which logits of words become weights.

    Attributes:
        pooling: `max` or `sum`, over the tokens of a text.
        logarithms: How often `log(1 + x)` is taken of the positive logits.
    """

    pooling: str = "max"
    logarithms: int = 1

    @classmethod
    def read(cls, folder: Path) -> "SpladePooling | None":
        """Read the folder of a checkpoint; None if it is no `SparseEncoder` of a masked language model.

        Raises:
            CheckpointError: A file is damaged, or has an unknown setting.
        """
        own = splade_folder(folder)
        if own is None:
            return None
        file = own / "config.json"
        settings = read_json(file, dict) if file.exists() else {}
        pooling, activation = settings.get("pooling_strategy", "max"), settings.get("activation_function", "relu")
        if pooling not in _POOLINGS or activation not in _LOGARITHMS:
            raise CheckpointError(
                f"{file}: pooling_strategy is {pooling!r} and activation_function is {activation!r}; encort exports "
                f"{' and '.join(_POOLINGS)}, and {' and '.join(_LOGARITHMS)}"
            )
        return cls(pooling=pooling, logarithms=_LOGARITHMS[activation])

    def weights(self, logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the weight of every word, `(batch, vocabulary)`.

        Args:
            logits: `(batch, sequence, vocabulary)`.
            mask: `(batch, sequence)`, 1 on tokens.
        """
        weights = torch.relu(logits)
        for _ in range(self.logarithms):
            weights = torch.log1p(weights)
        weights = weights * mask[:, :, None]
        return weights.amax(1) if self.pooling == "max" else weights.sum(1)
