"""Masked language modelling: an encoder learns the words of the user's own texts (Devlin et al. 2019)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch.nn.functional import cross_entropy

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.labelled_rows.schemas import TEXTS
from encort.training.data.examples import Examples, Schema
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tied_weights import WordNetwork

SHARE = 0.15
"""Share of the tokens that are predicted."""
MASKED, REPLACED = 0.8, 0.1
"""Shares of these that become the mask token, and any other token; the rest stay as they are."""


class MaskedLanguageModeling(TrainingTask):
    """Predict masked tokens of texts without labels. Long texts are read whole, in windows."""

    name = "masked-language-modeling"
    metric = "accuracy"
    shares_encoder = False
    schema = Schema(
        rows=TEXTS,
        features=datasets.Features({"text": datasets.Value("string"), "label": datasets.Value("float32")}),
    )

    def check_model(self, pretrained: Pretrained) -> None:
        """Refuse a model whose tokenizer has no mask token; see `TrainingTask`."""
        super().check_model(pretrained)
        if pretrained.saved_tokenizer.mask_token_id is None:
            raise CheckpointError(f"{pretrained.name}: its tokenizer has no mask token, so no word can be masked")

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a head that predicts words; the checkpoint's own, if it has one."""
        tokenizer = pretrained.saved_tokenizer
        return MaskedNetwork(
            pretrained.network(transformers.AutoModelForMaskedLM), mask=tokenizer.mask_token_id, tokens=len(tokenizer)
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs, one row per text or window, and the tokens that may be predicted as labels."""
        batch = pretrained.tokenizer(rows["text"], overflow="window", stride=0, all_cores=True)
        columns = token_columns(batch, has_types=pretrained.has_token_types)
        special = {*pretrained.saved_tokenizer.all_special_ids}
        labels = [[IGNORED if token in special else token for token in ids] for ids in columns["input_ids"]]
        return {**columns, "labels": labels}

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return the share of the masked tokens that are predicted right."""
        is_predicted = outputs != IGNORED
        hits = (outputs == targets)[is_predicted]
        return Scores(metrics={"accuracy": float(hits.mean()) if len(hits) else 0.0})

    def save(self, network: "MaskedNetwork", folder: Path) -> None:
        """Write the encoder with its head, from which every other task can start."""
        network.model.save_pretrained(folder)


class MaskedNetwork(WordNetwork):
    """A masked language model that masks its own inputs.

    In training, other tokens are masked in every epoch. In evaluation, the tokens depend on the text alone, so that
    evaluations can be compared.
    """

    def __init__(self, model: Any, *, mask: int, tokens: int) -> None:
        super().__init__(model)
        self._mask, self._tokens = mask, tokens

    def forward(self, labels: torch.Tensor, input_ids: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `loss`, the mean over the masked tokens, and `predicted`, `(batch, sequence)` int64.

        Args:
            labels: Tokens that may be masked, `(batch, sequence)` int64; -100 for the others.
            input_ids: Token ids, `(batch, sequence)` int64.
            inputs: Other inputs of the model.
        """
        draws = self._draw(input_ids).to(input_ids.device)
        chosen = choose_tokens(draws[0], labels != IGNORED)
        logits = self.model(input_ids=self._masked(input_ids, chosen, draws), **inputs).logits[chosen]
        loss = cross_entropy(logits, labels[chosen], reduction="sum") / max(1, len(logits))
        predicted = torch.full_like(labels, IGNORED)
        predicted[chosen] = logits.argmax(dim=-1)
        return {"loss": loss, "predicted": predicted}

    def _draw(self, ids: torch.Tensor) -> torch.Tensor:
        """Return random numbers from 0 to 1, three for each token: `(3, batch, sequence)` float32."""
        if self.training:
            return torch.rand(3, *ids.shape)
        rows = []
        for row in ids:
            seed = int((row * torch.arange(1, len(row) + 1, device=row.device)).sum())
            # One token after the other, so that padding changes nothing.
            rows.append(torch.rand(len(row), 3, generator=torch.Generator().manual_seed(seed)).T)
        return torch.stack(rows, dim=1)

    def _masked(self, ids: torch.Tensor, chosen: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
        """Return the ids with the chosen tokens masked, replaced or left."""
        other = (draws[2] * self._tokens).long().clamp(max=self._tokens - 1)
        masked = ids.masked_fill(chosen & (draws[1] < MASKED), self._mask)
        return torch.where(chosen & (draws[1] >= 1 - REPLACED), other, masked)


def choose_tokens(draws: torch.Tensor, may_be_chosen: torch.Tensor) -> torch.Tensor:
    """Return which tokens are predicted, `(batch, sequence)` bool: a share of them, and at least one of each row.

    Args:
        draws: Random numbers from 0 to 1, `(batch, sequence)`.
        may_be_chosen: `(batch, sequence)` bool.
    """
    draws = draws.masked_fill(~may_be_chosen, 2.0)
    return may_be_chosen & ((draws < SHARE) | (draws == draws.amin(dim=1, keepdim=True)))
