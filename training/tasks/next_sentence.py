"""Next-sentence prediction: whether the second text of a pair follows the first; by BERT's head or by two encoders."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import transformers
from sklearn.metrics import accuracy_score, confusion_matrix

from encort.runtime.common.errors import CheckpointError
from encort.runtime.common.labelled_rows.problems import Problems
from encort.runtime.common.labelled_rows.schemas import NEXT_SENTENCE
from encort.runtime.text.token_batch import Text
from encort.training.data.examples import Examples, Schema
from encort.training.data.sources import Source
from encort.training.dual_encoder import DualEncoderConfig, DualEncoderForNextSentence
from encort.training.features import token_columns
from encort.training.pretrained import Pretrained
from encort.training.tasks.base import Scores, TrainingTask
from encort.training.tasks.text_classification import label_settings


class NextSentencePrediction(TrainingTask):
    """BERT's own next-sentence head; its first logit says that the second text follows.

    Attributes:
        names: Names of the logits.
        column_of: Logit of each label, 1 for a text that follows and 0 for one that does not. Pairs with other labels
            are unknown, and are not learned from.
    """

    name = "next-sentence-prediction"
    metric = "accuracy"
    schema = Schema(
        rows=NEXT_SENTENCE,
        features=datasets.Features(
            {
                "text": datasets.Value("string"),
                "text_pair": datasets.Value("string"),
                "label": datasets.Value("int64"),
            }
        ),
    )
    names: Sequence[str] = ("is_next", "not_next")
    column_of: Mapping[int, int] = {1: 0, 0: 1}

    def labels(
        self, splits: Mapping[str, datasets.Dataset], sources: Mapping[str, Source], problems: Problems
    ) -> list[str]:
        """Return the names of the logits; see `TrainingTask`."""
        labels_by_split = {split: set(rows.unique("label")) for split, rows in splits.items()}
        if not {0, 1} <= labels_by_split["train"]:
            problems.add(f"{sources['train'].name} has no pairs of both kinds, labelled 1 and 0")
        for split, labels in labels_by_split.items():
            if split != "train" and not {0, 1} & labels:
                problems.add(f"{sources[split].name} has no pairs whose label is known")
        return [*self.names]

    def counts(self, rows: datasets.Dataset) -> Counter[str]:
        """Return the number of known pairs of each label."""
        return Counter(self.names[self.column_of[label]] for label in rows["label"] if label in (0, 1))

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return the encoder with the next-sentence head of transformers."""
        return pretrained.network(transformers.AutoModelForNextSentencePrediction, **label_settings(examples.labels))

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs and labels of the known pairs; see `TrainingTask`."""
        pairs, labels = self._known_pairs(rows)
        return {**pretrained.inputs(pairs), "labels": labels}

    def scores(
        self, outputs: Any, targets: Any, rows: datasets.Dataset, pretrained: Pretrained, examples: Examples
    ) -> Scores:
        """Return accuracy and confusion matrix over the known pairs; see `TrainingTask`."""
        predicted = outputs.argmax(axis=1)
        return Scores(
            metrics={"accuracy": float(accuracy_score(targets, predicted))},
            confusion=confusion_matrix(targets, predicted, labels=np.arange(2)),
        )

    def _known_pairs(self, rows: Mapping[str, Sequence[Any]]) -> tuple[list[Text], list[int]]:
        """Return the pairs whose label is known, and the column of the right logit of each."""
        known = [row for row in zip(rows["text"], rows["text_pair"], rows["label"], strict=True) if row[2] in (0, 1)]
        return [(first, second) for first, second, _ in known], [self.column_of[label] for *_, label in known]


class DualEncoderTask(NextSentencePrediction):
    """Two encoders, one for each order of the texts, and a linear layer on their pooled vectors.

    Both start with the weights of one BERT, or with those of an earlier dual encoder.
    """

    name = "dual-encoder"
    names = ("0", "1")
    column_of: Mapping[int, int] = {1: 1, 0: 0}
    shares_encoder = False

    def check_model(self, pretrained: Pretrained) -> None:
        """Refuse a model that is neither a BERT nor a dual encoder.

        Raises:
            CheckpointError: The model has another architecture.
        """
        if pretrained.config.model_type not in ("bert", DualEncoderConfig.model_type):
            raise CheckpointError(f"{pretrained.name} is no BERT; a dual encoder can be made from a BERT only")

    def network(self, pretrained: Pretrained, examples: Examples) -> Any:
        """Return both encoders with the linear layer."""
        if isinstance(pretrained.config, DualEncoderConfig):
            return super().network(pretrained, examples)
        settings = label_settings(examples.labels)
        if pretrained.from_scratch:
            return DualEncoderForNextSentence(DualEncoderConfig(pretrained.config.to_dict(), **settings))
        return DualEncoderForNextSentence.from_encoder(pretrained.network(transformers.AutoModel), **settings)

    def encode(
        self, rows: Mapping[str, Sequence[Any]], pretrained: Pretrained, examples: Examples
    ) -> dict[str, list[Any]]:
        """Return the inputs of both encoders and the labels; see `TrainingTask`."""
        pairs, labels = self._known_pairs(rows)
        batch = pretrained.tokenizer(pairs, reverse=True, all_cores=True)
        assert batch.reversed is not None
        reversed_columns = token_columns(batch.reversed, has_types=True, prefix="reversed_")
        del reversed_columns["reversed_attention_mask"]  # a pair has as many tokens in either order
        return {**token_columns(batch, has_types=True), **reversed_columns, "labels": labels}
