"""Learn from queries and their documents: a query is to score its own document above all others of the batch."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn.functional import cross_entropy, pad

from encort.runtime.common.labelled_rows.schemas import RETRIEVAL_PAIRS
from encort.training.data.examples import Examples, Schema
from encort.training.features import SEVERAL
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import LOSS, MEAN, Scores, TrainingTask

QUERY = "query_"
"""Prefix of the inputs of queries; those of documents have none."""


class RetrievalTask(TrainingTask):
    """Learns from queries, their documents, and documents that do not answer them.

    The weights with the least validation loss are kept. The shares of right documents are often the same for many
    weights, and they do not know how many words a sparse embedding has.
    """

    metric = LOSS
    shares_encoder = False
    learning_rate_at_768 = 2.5e-5
    schema = Schema(
        rows=RETRIEVAL_PAIRS,
        features=datasets.Features(
            {
                "query": datasets.Value("string"),
                "document": datasets.Value("string"),
                "negatives": datasets.List(datasets.Value("string")),
                "label": datasets.Value("float32"),
            }
        ),
    )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of documents, of queries and of negatives, each with its prefix; see `TrainingTask`."""
        columns = {
            **self.document_inputs(rows["document"], pretrained, prefix=""),
            **self.query_inputs(rows["query"], pretrained, prefix=QUERY),
        }
        if rows["negatives"][0] is not None:
            ends = np.cumsum([0, *map(len, rows["negatives"])])
            texts = [text for negatives in rows["negatives"] for text in negatives]
            inputs = self.document_inputs(texts, pretrained, prefix=SEVERAL)
            columns |= {name: [flat[i:j] for i, j in pairwise(ends)] for name, flat in inputs.items()}
        return {**columns, "labels": [0.0] * len(rows["query"])}

    def query_inputs(self, texts: Sequence[str], pretrained: Pretrained, *, prefix: str) -> dict[str, list[Any]]:
        """Return the inputs of the network for queries, one column per input."""
        return pretrained.inputs(texts, prefix=prefix)

    def document_inputs(self, texts: Sequence[str], pretrained: Pretrained, *, prefix: str) -> dict[str, list[Any]]:
        """Return the inputs of the network for documents, one column per input."""
        return pretrained.inputs(texts, prefix=prefix)

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return how well the own document is found among those of the batch, and the means of all other outputs."""
        values = dict(zip(self.outputs, outputs if isinstance(outputs, tuple) else [outputs], strict=True))
        ranks = values.pop("rank")
        found = {"accuracy_at_1": float((ranks == 1).mean()), "mrr": float((1 / ranks).mean())}
        return Scores(metrics=found | {f"{MEAN}{name}": float(counts.mean()) for name, counts in values.items()})

    @property
    def outputs(self) -> Sequence[str]:
        """Names of the outputs of the network but the loss, one number for each query."""
        return ["rank"]


class RankingNetwork(torch.nn.Module):
    """Scores queries against all documents of a batch. A subclass says how texts become vectors and scores."""

    @abstractmethod
    def vectors(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Return one vector per text, or one per token: `(texts, ...)`, for `score`."""

    @abstractmethod
    def score(self, queries: torch.Tensor, documents: torch.Tensor) -> torch.Tensor:
        """Return the score of every query for every document, `(queries, documents)` float32."""

    def measure(self, queries: torch.Tensor, documents: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return a number for each query, by name, and what is added to the loss as `penalty`.

        Args:
            queries: Vectors of queries.
            documents: Vectors of their documents, and then of negatives.
        """
        return {}

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return `loss`, the `rank` of the own document in the batch, `(batch,)` int64, and what `measure` gives.

        Args:
            labels: Not read.
            inputs: Inputs of the encoder for documents; those of queries and of negatives have prefixes.
        """
        query, negative = _take(inputs, QUERY), _take(inputs, SEVERAL)
        document = {name: value for name, value in inputs.items() if not name.startswith((QUERY, SEVERAL))}
        if negative:
            document = {name: _stack(document[name], negative[name]) for name in document}
        queries, documents = self.vectors(query), self.vectors(document)
        scores = leave_out_copies(self.score(queries, documents), _ids(query), _ids(document))
        outputs = self.measure(queries, documents)
        own = torch.arange(len(scores), device=scores.device)
        loss = cross_entropy(scores, own) + outputs.pop("penalty", 0.0)
        return {"loss": loss, "rank": ranks(scores), **outputs}


def ranks(scores: torch.Tensor) -> torch.Tensor:
    """Return the rank of the own document, `(queries,)` int64. Another one with the same score is counted as better.

    Args:
        scores: `(queries, documents)`; the own document of a query is in the column of its row.

    >>> ranks(torch.tensor([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0]])).tolist()
    [1, 2]
    """
    return (~(scores < scores.diagonal()[:, None])).sum(dim=1)


def leave_out_copies(scores: torch.Tensor, query_ids: torch.Tensor, document_ids: torch.Tensor) -> torch.Tensor:
    """Return the scores with minus infinity for other right documents: copies, and documents of an equal query.

    Args:
        scores: `(queries, documents)`.
        query_ids: Tokens of the queries, `(queries, sequence)`.
        document_ids: Tokens of their documents, and then of negatives, `(documents, sequence)`.
    """
    count = len(query_ids)
    right = (document_ids[:count, None] == document_ids).all(dim=2)
    right[:, :count] |= (query_ids[:, None] == query_ids).all(dim=2)
    right[:, :count].fill_diagonal_(False)
    return scores.masked_fill(right, -torch.inf)


def _take(inputs: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in inputs.items() if name.startswith(prefix)}


def _stack(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the rows of both, padded to the longer one. The attention mask leaves the padding out."""
    longest = max(first.shape[1], second.shape[1])
    return torch.cat([pad(part, (0, longest - part.shape[1])) for part in (first, second)])


def _ids(inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the token ids, with 0 for padding."""
    return inputs["input_ids"] * inputs["attention_mask"]
