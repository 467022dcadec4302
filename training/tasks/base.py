"""The interface of a task; `train` and `fit` do what is the same for all tasks."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
import transformers
from numpy.typing import NDArray

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.labelled_rows.problems import Problems
from encort.training.data.examples import Examples, Schema
from encort.training.data.sources import Source
from encort.training.dual_encoder import DualEncoderConfig
from encort.training.pretrained import Pretrained
from encort.training.settings import default_learning_rate

LOSS = "loss"
"""Metric of tasks whose best weights are those with the least loss."""
MEAN = "mean_"
"""Begin of the names of metrics that are means of counts, such as words per text."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """Scores of a network on one split.

    Attributes:
        metrics: Metrics by name, as fractions; those whose names begin with `MEAN` are means of counts.
        by_label: `precision`, `recall`, `f1-score` and `support` of every label, by its name.
        confusion: `(labels, labels)` int64, one row per right label, one column per predicted label; None where the
            task has no confusion matrix.
        confusion_labels: Names of its rows and columns; empty if they are the labels of the logits.
    """

    metrics: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    confusion_labels: Sequence[str] = ()


def precision_and_recall(hits: float, support: float, predicted: float) -> dict[str, float]:
    """Return the scores of one label from its counts.

    Args:
        hits: How often it was predicted and right.
        support: How often it is right.
        predicted: How often it was predicted.
    """
    return {
        "precision": float(hits / predicted) if predicted else 0.0,
        "recall": float(hits / support) if support else 0.0,
        "f1-score": float(2 * hits / (support + predicted)) if support + predicted else 0.0,
        "support": float(support),
    }


class TrainingTask(ABC):
    """One kind of labelled data, and the head that learns from it.

    Attributes:
        name: Name of the command.
        metric: Metric that chooses the best weights; more is better, except for `loss`.
        defaults: Settings that suit this task better than the general ones.
        learning_rate_at_768: Learning rate of an encoder as wide as BERT-base; see `default_learning_rate`.
        shares_encoder: Whether its head can stand beside others on one encoder.
        decides_on_validation: Whether `decide` has something to decide.
        schema: Examples of the task; the column `label` is what is learned.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    learning_rate_at_768: ClassVar[float] = 5e-5
    shares_encoder: ClassVar[bool] = True
    decides_on_validation: ClassVar[bool] = False

    @property
    def options(self) -> dict[str, Any]:
        """Options of the task's own, which determine the final weights."""
        return {}

    def callbacks(self, network: Any) -> list[transformers.TrainerCallback]:
        """Return what the trainer of transformers calls while it trains this network."""
        return []

    def labels(
        self,
        splits: Mapping[str, datasets.Dataset],
        sources: Mapping[str, Source],
        problems: Problems,
    ) -> list[str]:
        """Return the names of the labels in the order of the logits, and add what is wrong with them to the problems.

        Args:
            splits: Examples by split, `train` among them.
            sources: Sources by split, for messages.
            problems: Problems to add to.
        """
        return []

    def learning_rate(self, pretrained: Pretrained) -> float:
        """Return the learning rate for users who set none."""
        return default_learning_rate(pretrained.config.hidden_size, at_768=self.learning_rate_at_768)

    @property
    @abstractmethod
    def schema(self) -> Schema:
        """The examples of the task."""

    @property
    def key(self) -> str:
        """Key of the cache. Tasks that make different inputs from the same rows have different keys."""
        return self.name

    def for_model(self, pretrained: Pretrained) -> "TrainingTask":
        """Return the task with what the model keeps from an earlier training.

        Args:
            pretrained: The model that the training starts from.

        Raises:
            CheckpointError: The model keeps something that makes no sense.
        """
        return self

    def for_rows(self, rows: Iterable[Mapping[str, Any]]) -> "TrainingTask":
        """Return the task as the training rows need it.

        Args:
            rows: Values by role of every row, not checked.
        """
        return self

    def check_model(self, pretrained: Pretrained) -> None:
        """Refuse a model that cannot carry this head.

        Raises:
            CheckpointError: The model is a dual encoder, and the task is another one.
        """
        if isinstance(pretrained.config, DualEncoderConfig):
            raise CheckpointError(
                f"{pretrained.name} is a dual encoder, which only the task dual-encoder can train further"
            )

    def check_lengths(self, rows: datasets.Dataset, source: Source, pretrained: Pretrained, problems: Problems) -> None:
        """Add the inputs that this model cannot read to the problems."""
        return

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Return the number of examples of each label; empty where there are no labels."""
        return Counter()

    @abstractmethod
    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with a head for these examples; its `forward` gives a loss."""

    @abstractmethod
    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of the network and `labels` for some examples, one list per column.

        Args:
            rows: Examples, one sequence per column.
            pretrained: Tokenizer and settings.
            examples: All examples, for the order of the labels.
        """

    @abstractmethod
    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return the scores of the network on a split.

        Args:
            outputs: Outputs of the network without the loss, padded with -100.
            targets: Labels that it was given, padded likewise.
            rows: Examples of the split.
            pretrained: Tokenizer and settings.
            examples: All examples, for the order of the labels.
        """

    def decide(
        self, outputs: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> "TrainingTask":
        """Return the task with what the trained network decides on the validation data, such as a threshold.

        Args:
            outputs: See `scores`.
            rows: Examples of the validation data.
            pretrained: See `scores`.
            examples: See `scores`.
        """
        return self

    def save(self, network: Any, folder: Path) -> None:
        """Write the weights and settings of the checkpoint."""
        network.save_pretrained(folder)
