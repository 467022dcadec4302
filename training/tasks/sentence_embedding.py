"""Sentence embeddings from pairs of texts: alike texts get embeddings that are near each other."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from torch.nn.functional import cross_entropy, mse_loss, normalize, relu

from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import SENTENCE_PAIRS
from encort.training.data.examples import Examples, Schema
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tasks.text_classification import check_scores_differ, correlations

SCALE = 20.0
"""Factor of cosines before the softmax, as in sentence-transformers."""
MARGIN = 0.5
"""Pairs of the lower score are pushed apart up to this distance (one minus the cosine), and no further."""


class SentenceEmbedding(TrainingTask):
    """Embeddings by the mean of the tokens, L2-normalized, so that the dot product of two is their cosine.

    - Pairs with scores learn a cosine from 0 for the lowest to 1 for the highest score (Reimers and Gurevych 2019).
    - If there are only two scores, pairs of the lower one are pushed apart up to a margin (contrastive loss, Hadsell et
      al. 2006).
    - Pairs without scores are alike. The first text of a pair learns to be nearer to its second text than to the other
      second texts of the batch (Henderson et al. 2017); copies of its own second text do not count as others.
    """

    name = "sentence-embedding"
    shares_encoder = False
    metric = "score"
    learning_rate_at_768 = 2.5e-5
    schema = Schema(
        rows=SENTENCE_PAIRS,
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "text_pair": datasets.Value("string"),
                "label": datasets.Value("float32"),
            }
        ),
    )

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return no labels; scores must be in all splits or in none, and must differ. See `TrainingTask`."""
        has_scores = {split: rows.unique("label") != [None] for split, rows in splits.items()}
        if len(set(has_scores.values())) > 1:
            problems.add(f"scores are in {' and '.join(s for s, has in has_scores.items() if has)} only")
        elif has_scores["train"]:
            check_scores_differ(splits["train"], sources["train"], problems)
        return []

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with the loss that the scores ask for."""
        scores = {score for rows in examples.splits.values() for score in rows.unique("label")} - {None}
        encoder = pretrained.network(transformers.AutoModel)
        if not scores:
            return PairedEncoder(encoder, in_batch_loss)
        loss = contrastive_loss if len(scores) == 2 else cosine_loss
        return PairedEncoder(encoder, functools.partial(loss, low=min(scores), high=max(scores)))

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of both texts, those of the second with the prefix `pair_`; see `TrainingTask`."""
        columns: dict[str, list[Any]] = {}
        for role, prefix in (("text", ""), ("text_pair", "pair_")):
            columns |= pretrained.inputs(rows[role], prefix=prefix)
        return {**columns, "labels": [0.0 if score is None else score for score in rows["label"]]}

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return correlations of cosines and scores; without scores, how often the own second text is the nearest."""
        first, second = outputs
        if rows[0]["label"] is not None:
            measured = correlations((first * second).sum(axis=1), targets)
            return Scores(metrics={"score": measured["spearman"], **measured})
        nearest = [int((second @ vector).argmax()) for vector in first]
        hits = [rows[row]["text_pair"] == rows[best]["text_pair"] for row, best in enumerate(nearest)]
        return Scores(metrics={"score": float(np.mean(hits)), "accuracy_at_1": float(np.mean(hits))})

    def save(self, network: "PairedEncoder", folder: Path) -> None:
        """Write the encoder alone, with the files that tell sentence-transformers how to pool it."""
        network.encoder.save_pretrained(folder)
        pooling = {"word_embedding_dimension": network.config.hidden_size, "pooling_mode_mean_tokens": True}
        for name, content in {"modules.json": _MODULES, "1_Pooling/config.json": pooling}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


PairLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Function from first embeddings, second embeddings, scores and ids of the second texts to a scalar loss.

Shapes: `(batch, hidden)` float32 twice, `(batch,)` float32, `(batch, sequence)` int64."""


class PairedEncoder(torch.nn.Module):
    """An encoder with a loss on the two embeddings of each pair."""

    def __init__(self, encoder: Any, loss: PairLoss) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self._loss = loss

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `loss`, and the embeddings `first` and `second`, `(batch, hidden)` float32.

        Args:
            labels: Scores, `(batch,)` float32.
            inputs: Inputs of the encoder for the first texts; those for the second texts have the prefix `pair_`.
        """
        first = self._embed({name: value for name, value in inputs.items() if not name.startswith("pair_")})
        second = self._embed({n.removeprefix("pair_"): value for n, value in inputs.items() if n.startswith("pair_")})
        loss = self._loss(first, second, labels, inputs["pair_input_ids"])
        return {"loss": loss, "first": first, "second": second}

    def _embed(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        hidden = self.encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        return normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def in_batch_loss(first: torch.Tensor, second: torch.Tensor, _: torch.Tensor, second_ids: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of finding the own second text in the batch; copies of that text are left out."""
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    same = (second_ids[:, None] == second_ids).all(dim=2)
    cosines = (first @ second.T).masked_fill(same & ~own, -torch.inf)
    return cross_entropy(SCALE * cosines, torch.arange(len(first), device=first.device))


def cosine_loss(
    first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """Return the squared error of the cosine against the score, scaled to 0 for the lowest and 1 for the highest."""
    return mse_loss((first * second).sum(dim=1), (scores - low) / (high - low))


def contrastive_loss(
    first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """Return the contrastive loss: the higher score draws pairs near, the lower one pushes them `MARGIN` apart."""
    alike = (scores - low) / (high - low)
    distance = 1 - (first * second).sum(dim=1)
    return (alike * distance**2 + (1 - alike) * relu(MARGIN - distance) ** 2).mean() / 2


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
"""Parts of a model in `modules.json` of sentence-transformers."""
