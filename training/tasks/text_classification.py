"""Tasks whose head reads a text, or two: one label, several labels, or a number."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import torch
import transformers
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, classification_report, confusion_matrix, f1_score

from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import MULTI_LABEL_CLASSIFICATION, TEXT_CLASSIFICATION, TEXT_REGRESSION
from encort.runtime.tasks.classification import sigmoid
from encort.runtime.text.token_batch import Text
from encort.training.data.examples import Examples, Schema, check_labels, sort_labels
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask, precision_and_recall

_TEXT_FEATURES = {"text": datasets.Value("string"), "text_pair": datasets.Value("string")}


class TextClassification(TrainingTask):
    """One label per text."""

    name = "text-classification"
    metric = "accuracy"
    schema = Schema(
        rows=TEXT_CLASSIFICATION,
        features=datasets.Features({**_TEXT_FEATURES, "label": datasets.Value("string")}),
    )
    problem_type: ClassVar[str] = "single_label_classification"
    _min_labels: ClassVar[int] = 2

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return the labels of the training data, sorted; see `TrainingTask`."""
        names = sort_labels([*self.counts(splits["train"])])
        if len(names) < self._min_labels:
            problems.add(
                f"{sources['train'].name} has {len(names)} label(s), {', '.join(names)}; a classifier needs at least "
                f"{self._min_labels}"
            )
        for split, rows in splits.items():
            if split != "train":
                check_labels(rows, sources[split], names, problems, self._names)
        return names

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Return the number of examples of each label."""
        return Counter(name for value in rows["label"] for name in self._names(value))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a classifier for these labels."""
        return pretrained.network(
            transformers.AutoModelForSequenceClassification,
            problem_type=self.problem_type,
            **label_settings(examples.labels),
        )

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of the network and the number of each label; see `TrainingTask`."""
        labels = [self._target(value, examples.labels) for value in rows["label"]]
        return {**pretrained.inputs(_texts(rows)), "labels": labels}

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return accuracy, macro F1, scores of each label and the confusion matrix; see `TrainingTask`."""
        predicted, numbers = outputs.argmax(axis=1), range(len(examples.labels))
        return Scores(
            metrics={
                "accuracy": float(accuracy_score(targets, predicted)),
                "macro_f1": float(f1_score(targets, predicted, average="macro", labels=np.unique(targets))),
            },
            by_label=_score_labels(targets, predicted, examples.labels),
            confusion=confusion_matrix(targets, predicted, labels=numbers),
        )

    def _names(self, value: Any) -> list[str]:
        """Return the names of labels in a value of the column `label`; None stands for a row with a problem."""
        return [] if value is None else [value]

    def _target(self, value: Any, labels: Sequence[str]) -> Any:
        return labels.index(value)


@dataclass(frozen=True, kw_only=True)
class MultiLabelClassification(TextClassification):
    """Any number of labels per text.

    Attributes:
        threshold: Least probability of a label of a text. None: the one with the best micro F1 on the validation data.
    """

    threshold: float | None = None

    name = "multi-label-classification"
    metric = "micro_f1"
    decides_on_validation = True
    schema = Schema(
        rows=MULTI_LABEL_CLASSIFICATION,
        features=datasets.Features({**_TEXT_FEATURES, "label": datasets.List(datasets.Value("string"))}),
    )
    problem_type = "multi_label_classification"
    _min_labels = 1

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return micro F1, macro F1, accuracy of whole rows and the scores of each label; see `TrainingTask`.

        Without a threshold of its own, the task is scored with the one that is best for these rows.
        """
        probabilities = sigmoid(outputs)
        threshold = best_threshold(probabilities, targets) if self.threshold is None else self.threshold
        predicted = (probabilities >= threshold).astype(int)
        hits, support, counts = (array.sum(axis=0) for array in (targets * predicted, targets, predicted))
        by_label = {
            label: precision_and_recall(*counts_of_label)
            for label, *counts_of_label in zip(examples.labels, hits, support, counts, strict=True)
        }
        return Scores(
            metrics={
                "micro_f1": precision_and_recall(hits.sum(), support.sum(), counts.sum())["f1-score"],
                "macro_f1": float(np.mean([row["f1-score"] for row in by_label.values()])),
                "accuracy": float((targets == predicted).all(axis=1).mean()),
            },
            by_label=by_label,
        )

    def decide(
        self, outputs: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> "MultiLabelClassification":
        """Return the task with the threshold that has the best micro F1 on the validation data; see `TrainingTask`."""
        if self.threshold is not None:
            return self
        targets = np.array([self._target(value, examples.labels) for value in rows["label"]])
        return MultiLabelClassification(threshold=best_threshold(sigmoid(outputs), targets))

    def save(self, network: Any, folder: Path) -> None:
        """Write the weights and settings of the checkpoint; `encort export` reads the threshold from them."""
        network.config.threshold = self.threshold
        super().save(network, folder)

    def _names(self, value: Any) -> list[str]:
        return list(value or [])

    def _target(self, value: Any, labels: Sequence[str]) -> Any:
        return [float(label in value) for label in labels]


class TextRegression(TrainingTask):
    """A number per text, such as a similarity or a rating."""

    name = "text-regression"
    metric = "spearman"
    learning_rate_at_768 = 2.5e-5  # docs/decisions/0009: at twice that, pairs did not learn
    schema = Schema(
        rows=TEXT_REGRESSION,
        features=datasets.Features({**_TEXT_FEATURES, "label": datasets.Value("float32")}),
    )

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return the name of the only logit; see `TrainingTask`."""
        check_scores_differ(splits["train"], sources["train"], problems)
        return ["score"]

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with one linear output."""
        network = pretrained.network(
            transformers.AutoModelForSequenceClassification,
            problem_type="regression",
            **label_settings(examples.labels),
        )
        _start_at_mean(network, float(np.mean(examples.train["label"])))
        return network

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of the network and the scores; see `TrainingTask`."""
        return {**pretrained.inputs(_texts(rows)), "labels": [float(value) for value in rows["label"]]}

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return the correlations; see `TrainingTask`."""
        return Scores(metrics=correlations(outputs[:, 0], targets))


def best_threshold(probabilities: Any, targets: Any) -> float:
    """Return the threshold of probabilities with the best micro F1, the one nearest to 0.5 of several.

    Args:
        probabilities: `(texts, labels)` float32.
        targets: `(texts, labels)`: 1 where a text has a label, 0 elsewhere.
    """
    order = np.argsort(probabilities, axis=None)
    rising, right = probabilities.ravel()[order].astype(np.float64), targets.ravel()[order]
    distinct = np.unique(rising)
    limits = np.append(0.5, (distinct[1:] + distinct[:-1]) / 2)
    left_out = np.searchsorted(rising, limits)
    hits = right.sum() - np.append(0, np.cumsum(right))[left_out]
    f1 = 2 * hits / np.maximum(1, len(rising) - left_out + right.sum())
    best = limits[f1 >= f1.max() - 1e-9]
    return float(best[np.abs(best - 0.5).argmin()])


def _texts(rows: Mapping[str, Sequence[Any]]) -> list[Text]:
    return [text if pair is None else (text, pair) for text, pair in zip(rows["text"], rows["text_pair"], strict=True)]


def _start_at_mean(network: Any, mean: float) -> None:
    """Set the bias of a new head to the mean of the scores, which it would have to learn first."""
    *_, head = (layer for layer in network.modules() if isinstance(layer, torch.nn.Linear) and layer.out_features == 1)
    if not head.bias.any():
        torch.nn.init.constant_(head.bias, mean)


def label_settings(labels: Sequence[str]) -> dict[str, Any]:
    """Return the settings of transformers for a head with these labels."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}


def check_scores_differ(rows: datasets.Dataset, source: Source, problems: Problems) -> None:
    """Add scores that are all equal to the problems: nothing can be learned from them."""
    if len(rows.unique("label")) < 2:
        problems.add(f"{source.name}: all scores are the same")


def correlations(outputs: Any, targets: Any) -> dict[str, float]:
    """Return the rank and the linear correlation of two arrays `(n,)`; 0 where one of them is constant."""
    if np.ptp(outputs) == 0 or np.ptp(targets) == 0:
        return {"spearman": 0.0, "pearson": 0.0}
    return {"spearman": float(spearmanr(outputs, targets)[0]), "pearson": float(pearsonr(outputs, targets)[0])}


def _score_labels(targets: Any, predicted: Any, labels: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    report = classification_report(
        targets, predicted, labels=range(len(labels)), target_names=labels, output_dict=True, zero_division=0
    )
    return {label: report[label] for label in labels}
