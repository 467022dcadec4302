"""Records of `encort predict --labels`: any labels, with a head of natural language inference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encort.runtime.bundle.manifest import HeadInfo, Task
from encort.runtime.common.errors import InputError, InputTypeError
from encort.runtime.corpus.inputs import Record
from encort.runtime.model import Model
from encort.runtime.tasks.zero_shot import TEMPLATE, entailment_columns, hypotheses, zero_shot
from encort.runtime.text.token_batch import Text, TokenBatch


def check_options(
    labels: str | None, *, with_labels_only: Mapping[str, Any], without_labels_only: Mapping[str, Any]
) -> None:
    """Refuse options that do not go with the labels.

    Args:
        labels: The labels, if they are given.
        with_labels_only: Values of options that need labels.
        without_labels_only: Values of options that do not go with labels.

    Raises:
        InputError: One of them is given.
    """
    wrong = with_labels_only if labels is None else without_labels_only
    for name, value in wrong.items():
        if value is not None and value is not False:
            raise InputError(f"{name} {'needs --labels' if labels is None else 'does not go with --labels'}")


@dataclass(frozen=True, kw_only=True)
class ZeroShotRecords:
    """Records of texts that get one of any labels; see `Model.classify_zero_shot`.

    Attributes:
        labels: The labels to choose from.
        template: The hypothesis about a label.
        multi_label: Whether several labels may fit.
        head: Name of the head; None: the first that classifies.
        all_scores: Write the score of every label.
        threshold: Least probability of a label that fits, if several may; None: 0.5.
    """

    labels: Sequence[str]
    template: str = TEMPLATE
    multi_label: bool = False
    head: str | None = None
    all_scores: bool = False
    threshold: float | None = None

    def tokenization(self, model: Model) -> dict[str, Any]:
        """Return the options of `Model.tokenize`, for what the user leaves open.

        Raises:
            InputError: The labels or the template make no hypotheses.
            WrongTaskError: The bundle has no head for natural language inference.
        """
        hypotheses(self.labels, self.template)
        entailment_columns(self._head(model))
        return {"overflow": "truncate", "prompt": ""}

    def join(self, model: Model, texts: Sequence[Text]) -> Sequence[Text]:  # noqa: ARG002 - of the protocol
        """Return the pairs of each text with all hypotheses, text after text.

        Raises:
            InputTypeError: An input is a pair already.
        """
        if not all(isinstance(text, str) for text in texts):
            raise InputTypeError("texts are paired with the labels' hypotheses: give single texts, not pairs")
        makes = hypotheses(self.labels, self.template)
        return [(str(text), hypothesis) for text in texts for hypothesis in makes]

    def no_embeddings(self, model: Model) -> NDArray[Any]:  # noqa: ARG002 - of the protocol
        """Return an array of no embeddings."""
        return np.empty((0, 0), np.float32)

    def make(self, model: Model, batch: TokenBatch) -> list[Record]:
        """Return one record per text."""
        head = self._head(model)
        logits = model.logits(batch, head=head.name)
        columns = entailment_columns(head)
        records: list[Record] = []
        for result in zero_shot(logits, columns, self.labels, batch, multi_label=self.multi_label):
            record: dict[str, Any] = {"label": result.label, "score": result.score}
            if self.multi_label:
                record = {"labels": result.above(self.threshold)}
            if self.all_scores:
                record["scores"] = result.scores
            records.append(record | {"tokens": result.tokens, "truncated": result.truncated})
        return records

    def _head(self, model: Model) -> HeadInfo:
        return model.head(self.head, Task.TEXT_CLASSIFICATION)
