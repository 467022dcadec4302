"""Pairs of texts to an encoder whose sentence embeddings are near where the texts are alike."""

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

from encort.training.data.cells import optional, read_cells, score_cell, text_cell
from encort.training.data.examples import Column, Examples, Schema
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tasks.text_classification import check_scores, correlations

SCALE = 20.0
"""Of cosines before the softmax, as sentence-transformers has it."""
MARGIN = 0.5
"""Distance, one minus the cosine, beyond which texts that are not alike are left alone."""


class SentenceEmbedding(TrainingTask):
    """Embeddings by the mean of the tokens; L2 normalized, so that a product of two is their cosine.

    Pairs with a score learn that the cosine is the score, from 0 for the lowest to 1 for the highest (Reimers and
    Gurevych 2019). If there are two scores only, the pairs of the lower one are pushed apart until they are far enough
    (contrastive, Hadsell et al. 2006). Pairs without a score are alike; each learns to be nearer to its own than to
    the others of its batch (Henderson et al. 2017), of which those that are the same text as its own are none.
    """

    name = "sentence-embedding"
    shares_encoder = False
    metric = "score"
    learning_rate_at_768 = 2.5e-5
    schema = Schema(
        columns=[
            Column(role="text", names=["text"]),
            Column(role="text_pair", names=["text_pair"]),
            Column(role="label", names=["score", "label"], optional=True),
        ],
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "text_pair": datasets.Value("string"),
                "label": datasets.Value("float32"),
            }
        ),
        example=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=optional(score_cell)),
    )

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        has_scores = {split: rows.unique("label") != [None] for split, rows in splits.items()}
        if len(set(has_scores.values())) > 1:
            problems.add(f"scores are in {' and '.join(s for s, has in has_scores.items() if has)} only")
        elif has_scores["train"]:
            check_scores(splits["train"], sources["train"], problems)
        return []

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        scores = {score for rows in examples.splits.values() for score in rows.unique("label")} - {None}
        encoder = pretrained.network(transformers.AutoModel)
        if not scores:
            return PairedEncoder(encoder, in_batch_loss)
        loss = contrastive_loss if len(scores) == 2 else cosine_loss
        return PairedEncoder(encoder, functools.partial(loss, low=min(scores), high=max(scores)))

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        columns: dict[str, list[Any]] = {}
        for role, prefix in (("text", ""), ("text_pair", "pair_")):
            columns |= pretrained.inputs(rows[role], prefix=prefix)
        return {**columns, "labels": [0.0 if score is None else score for score in rows["label"]]}

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        first, second = found
        if rows[0]["label"] is not None:
            measured = correlations((first * second).sum(axis=1), expected)
            return Scores(metrics={"score": measured["spearman"], **measured})
        # Of all the second texts, is its own the nearest?
        nearest = [int((second @ vector).argmax()) for vector in first]
        hits = [rows[row]["text_pair"] == rows[best]["text_pair"] for row, best in enumerate(nearest)]
        return Scores(metrics={"score": float(np.mean(hits)), "accuracy_at_1": float(np.mean(hits))})

    def save(self, network: "PairedEncoder", folder: Path) -> None:
        """The encoder alone, with the files that tell sentence-transformers how to pool it."""
        network.encoder.save_pretrained(folder)
        pooling = {"word_embedding_dimension": network.config.hidden_size, "pooling_mode_mean_tokens": True}
        for name, content in {"modules.json": _MODULES, "1_Pooling/config.json": pooling}.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


PairLoss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of the first and second embeddings, `(batch, hidden)` float32, of scores, `(batch,)` float32, and of the second
texts' ids, `(batch, sequence)` int64."""


class PairedEncoder(torch.nn.Module):
    """An encoder with a loss of a pair's embeddings."""

    def __init__(self, encoder: Any, loss: PairLoss) -> None:
        super().__init__()
        self.encoder, self.config = encoder, encoder.config
        self._loss = loss

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss, and both embeddings, `(batch, hidden)` float32.

        Args:
            labels: Scores, `(batch,)` float32.
            inputs: Of the encoder, and those of the second texts with `pair_` before their names.
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
    """Each first text finds its own second among those of the batch; the same text again does not count against it."""
    own = torch.eye(len(first), dtype=torch.bool, device=first.device)
    same = (second_ids[:, None] == second_ids).all(dim=2)
    cosines = (first @ second.T).masked_fill(same & ~own, -torch.inf)
    return cross_entropy(SCALE * cosines, torch.arange(len(first), device=first.device))


def cosine_loss(
    first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """The cosine is the score, as a part of the way from the lowest to the highest."""
    return mse_loss((first * second).sum(dim=1), (scores - low) / (high - low))


def contrastive_loss(
    first: torch.Tensor, second: torch.Tensor, scores: torch.Tensor, _: torch.Tensor, *, low: float, high: float
) -> torch.Tensor:
    """Pairs of the higher score draw near; those of the lower one are pushed until they are `MARGIN` apart."""
    alike = (scores - low) / (high - low)
    distance = 1 - (first * second).sum(dim=1)
    return (alike * distance**2 + (1 - alike) * relu(MARGIN - distance) ** 2).mean() / 2


_MODULES = [
    {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
]
"""As sentence-transformers lists the parts of a model."""
