"""Pairs of texts, and whether the second follows the first: BERT's own head, or two encoders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import transformers
from sklearn.metrics import accuracy_score, confusion_matrix

from encort.runtime.errors import CheckpointError
from encort.runtime.tokens import Text
from encort.training.examples import Column, Example, Examples, Problems, RowError, Schema, label_cell, text_cell
from encort.training.features import IGNORED, token_columns
from encort.training.pretrained import Pretrained
from encort.training.sources import Source
from encort.training.task import Scores, TrainingTask
from encort.training.text_classification import label_settings
from encort.training.two_encoders import TwoEncodersConfig, TwoEncodersForNextSentence

FOLLOWS = {"1": 1, "true": 1, "is_next": 1, "0": 0, "false": 0, "not_next": 0, "-1": -1}
"""What a label may be, and whether the second text follows; -1 is unknown, and not learned from."""


def _judged(values: Mapping[str, Any]) -> Example:
    label = label_cell(values).lower()
    if label not in FOLLOWS:
        raise RowError(f"label is none of {', '.join(FOLLOWS)}")
    pair = {role: text_cell(values, role) for role in ("text", "text_pair")}
    return {**pair, "label": FOLLOWS[label]}


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
        example=_judged,
    )
    names: Sequence[str] = ("is_next", "not_next")
    column_of: Mapping[int, int] = {1: 0, 0: 1, -1: IGNORED}
    """The logit of each label."""

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        if not {0, 1} <= set(splits["train"].unique("label")):
            problems.add(f"{sources['train'].name} has no pairs of both kinds, labelled 1 and 0")
        return [*self.names]

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        return Counter(map(str, rows["label"]))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(transformers.AutoModelForNextSentencePrediction, **label_settings(examples.labels))

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        columns = token_columns(pretrained.tokenizer(_pairs(rows)), has_types=pretrained.has_token_types)
        return {**columns, "labels": [self.column_of[label] for label in rows["label"]]}

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        known = expected >= 0
        right, best = expected[known], found.argmax(axis=1)[known]
        return Scores(
            metrics={"accuracy": float(accuracy_score(right, best)) if known.any() else 0.0},
            confusion=confusion_matrix(right, best, labels=np.arange(2)) if known.any() else None,
        )


class TwoEncoders(NextSentencePrediction):
    """Two encoders, one for each order of the texts, and a linear layer on both of their pooled vectors."""

    names = ("0", "1")
    column_of: Mapping[int, int] = {1: 1, 0: 0, -1: -1}

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        if pretrained.config.model_type != "bert":
            raise CheckpointError(f"{pretrained.name} is no BERT, of which a model of two encoders is made")
        settings = label_settings(examples.labels)
        if pretrained.from_scratch:
            return TwoEncodersForNextSentence(TwoEncodersConfig(pretrained.config.to_dict(), **settings))
        pretrained.network(transformers.AutoModel)  # complains of missing weights
        return TwoEncodersForNextSentence.from_encoder(pretrained.name, pretrained.config, **settings)

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        batch = pretrained.tokenizer(_pairs(rows), reverse=True)
        assert batch.reversed is not None
        exchanged = token_columns(batch.reversed, has_types=True, prefix="reversed_")
        del exchanged["reversed_attention_mask"]  # a pair has as many tokens in either order
        labels = [self.column_of[label] for label in rows["label"]]
        return {**token_columns(batch, has_types=True), **exchanged, "labels": labels}


def _pairs(rows: Mapping[str, Sequence[Any]]) -> list[Text]:
    return list(zip(rows["text"], rows["text_pair"], strict=True))
