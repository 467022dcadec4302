"""What a task must know to be trained; `train` and `fit` do the rest."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import datasets
import numpy as np
from numpy.typing import NDArray

from encort.runtime.common.errors import CheckpointError
from encort.training.data.examples import Examples, Schema
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.settings import default_learning_rate
from encort.training.tasks.dual_encoder import DualEncoderConfig


@dataclass(frozen=True, eq=False, kw_only=True)
class Scores:
    """How good a network is on one split.

    Attributes:
        metrics: By name, as fractions.
        by_label: `precision`, `recall`, `f1-score` and `support` of every label, by its name.
        confusion: `(labels, labels)` int64, right labels down, found ones across; None where there is no such thing.
        confusion_labels: Names of its rows and columns; none where they are those of the logits.
    """

    metrics: Mapping[str, float]
    by_label: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None
    confusion_labels: Sequence[str] = ()


def precision_and_recall(both: float, support: float, found: float) -> dict[str, float]:
    """Of a label.

    Args:
        both: How often it is right and was found.
        support: How often it is right.
        found: How often it was found.
    """
    return {
        "precision": float(both / found) if found else 0.0,
        "recall": float(both / support) if support else 0.0,
        "f1-score": float(2 * both / (support + found)) if support + found else 0.0,
        "support": float(support),
    }


class TrainingTask(ABC):
    """One kind of labelled data, and the head that learns from it.

    Attributes:
        name: Of the command.
        metric: That chooses the best weights, more is better.
        schema: Of its examples; what is to be learned is in the column `label`.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings that are better for this task than the usual ones."""
    learning_rate_at_768: ClassVar[float] = 5e-5
    """For an encoder as wide as BERT-base; see `default_learning_rate`."""
    shares_encoder: ClassVar[bool] = True
    """Whether its head can stand beside others on one encoder."""

    def labels(
        self,
        splits: Mapping[str, datasets.Dataset],
        sources: Mapping[str, Source],
        problems: Problems,
    ) -> list[str]:
        """Names in the order of the logits; what is wrong with them is added to the problems."""
        return []

    def learning_rate(self, pretrained: Pretrained) -> float:
        """For those who set none."""
        return default_learning_rate(pretrained.config.hidden_size, at_768=self.learning_rate_at_768)

    @property
    @abstractmethod
    def schema(self) -> Schema: ...

    @property
    def key(self) -> str:
        """Another one where the same rows become other inputs."""
        return self.name

    def for_rows(self, rows: Iterable[Mapping[str, Any]]) -> "TrainingTask":
        """The task as these training rows, by role, want it."""
        return self

    def check_model(self, pretrained: Pretrained) -> None:
        """Refuse a model of which no encoder for this head can be made.

        Raises:
            CheckpointError: It is such a one.
        """
        if isinstance(pretrained.config, DualEncoderConfig):
            raise CheckpointError(
                f"{pretrained.name} is a model of two encoders, which only the task dual-encoder trains further"
            )

    def check_lengths(self, rows: datasets.Dataset, source: Source, pretrained: Pretrained, problems: Problems) -> None:
        """Add inputs that this model cannot read to the problems."""
        return

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Examples of every label."""
        return Counter()

    @abstractmethod
    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """The encoder with a head for these examples, whose `forward` gives a loss."""

    @abstractmethod
    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Inputs of the network and `labels`, a column each, for some of the examples."""

    @abstractmethod
    def scores(
        self, found: Any, expected: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Metrics of what the network gave for a split.

        Args:
            found: Its outputs but the loss, padded with -100.
            expected: The labels that it was given, padded alike.
            rows: The split's examples.
        """

    def save(self, network: Any, folder: Path) -> None:
        """Write the checkpoint's weights and settings."""
        network.save_pretrained(folder)
