"""Texts or pairs of texts into classes: one of them, several, or a number."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score

from encort.runtime.text.token_batch import Text
from encort.training.data.cells import label_cell, list_cell, optional, read_cells, score_cell, text_cell
from encort.training.data.examples import Column, Examples, Schema, check_labels, sorted_labels
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask, precision_and_recall

TEXT_COLUMNS = (Column(role="text", names=["text"]), Column(role="text_pair", names=["text_pair"], optional=True))
TEXT_FEATURES = {"text": datasets.Value("string"), "text_pair": datasets.Value("string")}
TEXT_CELLS = {"text": text_cell, "text_pair": optional(text_cell)}
SEPARATOR = "|"


def texts_of(rows: Mapping[str, Sequence[Any]]) -> list[Text]:
    return [text if pair is None else (text, pair) for text, pair in zip(rows["text"], rows["text_pair"], strict=True)]


def labels_cell(values: Mapping[str, Any], role: str) -> list[str]:
    """A list of labels; in tables of text they are separated by bars."""
    labels = values.get(role)
    if isinstance(labels, str):
        labels = labels.split(SEPARATOR)
    return [name.strip() for name in list_cell({role: labels}, role) if name.strip()]


class TextClassification(TrainingTask):
    """One class a text."""

    name = "text-classification"
    metric = "accuracy"
    schema = Schema(
        columns=[*TEXT_COLUMNS, Column(role="label", names=["label_text", "label"], or_the_rest=True)],
        features=datasets.Features({**TEXT_FEATURES, "label": datasets.Value("string")}),
        example=functools.partial(read_cells, **TEXT_CELLS, label=label_cell),
    )
    problem_type: ClassVar[str] = "single_label_classification"
    _least_labels: ClassVar[int] = 2

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        names = sorted_labels([*self.counts(splits["train"])])
        if len(names) < self._least_labels:
            problems.add(
                f"{sources['train'].name} has {len(names)} label(s), {', '.join(names)}; a classifier needs at least "
                f"{self._least_labels}"
            )
        for split, rows in splits.items():
            if split != "train":
                check_labels(rows, sources[split], names, problems, self._names)
        return names

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        return Counter(name for value in rows["label"] for name in self._names(value))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        return pretrained.network(
            transformers.AutoModelForSequenceClassification,
            problem_type=self.problem_type,
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        labels = [self._target(value, examples.labels) for value in rows["label"]]
        return {**pretrained.inputs(texts_of(rows)), "labels": labels}

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        best, numbers = found.argmax(axis=1), range(len(examples.labels))
        return Scores(
            metrics={
                "accuracy": float(accuracy_score(expected, best)),
                "macro_f1": float(f1_score(expected, best, average="macro", labels=np.unique(expected))),
            },
            by_label=_by_label(expected, best, examples.labels),
            confusion=confusion_matrix(expected, best, labels=numbers),
        )

    def _names(self, value: Any) -> list[str]:
        return [] if value is None else [value]

    def _target(self, value: Any, labels: Sequence[str]) -> Any:
        return labels.index(value)


class MultiLabelClassification(TextClassification):
    """Any number of labels a text."""

    name = "multi-label-classification"
    metric = "micro_f1"
    schema = Schema(
        columns=[*TEXT_COLUMNS, Column(role="label", names=["labels", "label"], or_the_rest=True)],
        features=datasets.Features({**TEXT_FEATURES, "label": datasets.List(datasets.Value("string"))}),
        example=functools.partial(read_cells, **TEXT_CELLS, label=labels_cell),
    )
    problem_type = "multi_label_classification"
    _least_labels = 1

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        # A logit above 0 is a probability above one half.
        chosen = (found > 0).astype(int)
        both, support, given = (counted.sum(axis=0) for counted in (expected * chosen, expected, chosen))
        by_label = {
            label: precision_and_recall(*counts)
            for label, *counts in zip(examples.labels, both, support, given, strict=True)
        }
        return Scores(
            metrics={
                "micro_f1": precision_and_recall(both.sum(), support.sum(), given.sum())["f1-score"],
                "macro_f1": float(np.mean([row["f1-score"] for row in by_label.values()])),
                "accuracy": float((expected == chosen).all(axis=1).mean()),
            },
            by_label=by_label,
        )

    def _names(self, value: Any) -> list[str]:
        return list(value or [])

    def _target(self, value: Any, labels: Sequence[str]) -> Any:
        return [float(label in value) for label in labels]


class TextRegression(TrainingTask):
    """A number a text: a similarity, a rating."""

    name = "text-regression"
    metric = "spearman"
    learning_rate_at_768 = 2.5e-5  # docs/decisions/0009: at twice that, pairs did not learn
    schema = Schema(
        columns=[*TEXT_COLUMNS, Column(role="label", names=["score", "label"], or_the_rest=True)],
        features=datasets.Features({**TEXT_FEATURES, "label": datasets.Value("float32")}),
        example=functools.partial(read_cells, **TEXT_CELLS, label=score_cell),
    )

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        check_scores(splits["train"], sources["train"], problems)
        return ["score"]

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        network = pretrained.network(
            transformers.AutoModelForSequenceClassification,
            problem_type="regression",
            **label_settings(examples.labels),
        )
        _begin_at_the_mean(network, float(np.mean(examples.train["label"])))
        return network

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        return {**pretrained.inputs(texts_of(rows)), "labels": [float(value) for value in rows["label"]]}

    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        return Scores(metrics=correlations(found[:, 0], expected))


def _begin_at_the_mean(network: Any, mean: float) -> None:
    """A new head gives the mean of the scores, which it would have to learn first."""
    *_, head = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == 1)
    if not head.bias.any():
        torch.nn.init.constant_(head.bias, mean)


def label_settings(labels: Sequence[str]) -> dict[str, Any]:
    """Settings of transformers for a head of these labels."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def check_scores(rows: datasets.Dataset, source: Source, problems: Problems) -> None:
    """There must be something to learn."""
    if len(rows.unique("label")) < 2:
        problems.add(f"{source.name}: all scores are the same")


def correlations(found: Any, expected: Any) -> dict[str, float]:
    """How alike two rows of numbers are: by rank, and linearly; 0 where one of them never changes."""
    if np.ptp(found) == 0 or np.ptp(expected) == 0:
        return {"spearman": 0.0, "pearson": 0.0}
    return {"spearman": float(spearmanr(found, expected)[0]), "pearson": float(pearsonr(found, expected)[0])}


def _by_label(expected: Any, found: Any, labels: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    report = classification_report(
        expected, found, labels=range(len(labels)), target_names=labels, output_dict=True, zero_division=0
    )
    return {label: report[label] for label in labels}
