"""Pairs of texts, and whether the second follows the first: BERT's own head, or two encoders."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import transformers
from sklearn.metrics import accuracy_score, confusion_matrix

from encort.runtime.common.errors import CheckpointError
from encort.runtime.text.token_batch import Text
from encort.training.data.cells import RowError, label_cell, read_cells, text_cell
from encort.training.data.examples import Column, Examples, Schema
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.features import token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tasks.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence
from encort.training.tasks.text_classification import label_settings

FOLLOWS = {"1": 1, "true": 1, "is_next": 1, "0": 0, "false": 0, "not_next": 0, "-1": -1}
"""What a label may be, and whether the second text follows; -1 is unknown, and not learned from."""


def follows_cell(values: Mapping[str, Any], role: str) -> int:
    label = label_cell(values, role).lower()
    if label not in FOLLOWS:
        raise RowError(f"{role} is none of {', '.join(FOLLOWS)}")
    return FOLLOWS[label]


class NextSentencePrediction(TrainingTask):
    """BERT's next-sentence head, whose first label is that the second text follows."""

    name = "next-sentence-prediction"
    metric = "accuracy"
    schema = Schema(
        columns=[
            Column(role="text", names=["text"]),
            Column(role="text_pair", names=["text_pair"]),
            Column(role="label", names=["label"], or_the_rest=True),
        ],
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "text_pair": datasets.Value("string"),
                "label": datasets.Value("int64"),
            }
        ),
        example=functools.partial(read_cells, text=text_cell, text_pair=text_cell, label=follows_cell),
    )
    names: Sequence[str] = ("is_next", "not_next")
    column_of: Mapping[int, int] = {1: 0, 0: 1}
    """The logit of each label."""

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        found = {split: set(rows.unique("label")) for split, rows in splits.items()}
        if not {0, 1} <= found["train"]:
            problems.add(f"{sources['train'].name} has no pairs of both kinds, labelled 1 and 0")
        problems.other += [
            f"{sources[split].name} has no pairs whose label is known"
            for split, labels in found.items()
            if split != "train" and not {0, 1} & labels
        ]
        return [*self.names]

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        return Counter(self.names[self.column_of[label]] for label in rows["label"] if label in (0, 1))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(transformers.AutoModelForNextSentencePrediction, **label_settings(examples.labels))

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        pairs, labels = self._known(rows)
        return {**pretrained.inputs(pairs), "labels": labels}

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        best = found.argmax(axis=1)
        return Scores(
            metrics={"accuracy": float(accuracy_score(expected, best))},
            confusion=confusion_matrix(expected, best, labels=np.arange(2)),
        )

    def _known(self, rows: Mapping[str, Sequence[Any]]) -> tuple[list[Text], list[int]]:
        """Pairs whose label is known, with the columns of their logits."""
        known = [row for row in zip(rows["text"], rows["text_pair"], rows["label"], strict=True) if row[2] in (0, 1)]
        return [(first, second) for first, second, _ in known], [self.column_of[label] for *_, label in known]


class DualEncoderTask(NextSentencePrediction):
    """Two encoders, one for each order of the texts, and a linear layer on both of their pooled vectors.

    Both begin with the weights of a BERT, or go on from those of an earlier model of two encoders.
    """

    name = "dual-encoder"
    names = ("0", "1")
    column_of: Mapping[int, int] = {1: 1, 0: 0}
    shares_encoder = False

    def check_model(self, pretrained: Pretrained) -> None:
        if pretrained.config.model_type not in ("bert", DualEncoderConfig.model_type):
            raise CheckpointError(f"{pretrained.name} is no BERT, of which a model of two encoders is made")

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        if isinstance(pretrained.config, DualEncoderConfig):
            return super().network(pretrained, examples)
        settings = label_settings(examples.labels)
        if pretrained.from_scratch:
            return DualEncoderForNextSentence(DualEncoderConfig(pretrained.config.to_dict(), **settings))
        return DualEncoderForNextSentence.from_encoder(pretrained.network(transformers.AutoModel), **settings)

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        pairs, labels = self._known(rows)
        batch = pretrained.tokenizer(pairs, reverse=True, all_cores=True)
        assert batch.reversed is not None
        exchanged = token_columns(batch.reversed, has_types=True, prefix="reversed_")
        del exchanged["reversed_attention_mask"]  # a pair has as many tokens in either order
        return {**token_columns(batch, has_types=True), **exchanged, "labels": labels}
