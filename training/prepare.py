"""Sources and an encoder to what can be trained: everything is checked first, and every problem is told at once."""

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import datasets

from encort.runtime.common.errors import CheckpointError, DatasetError, InputError
from encort.training.data.examples import (
    Examples,
    by_role,
    check_roles,
    code_version,
    find_columns,
    hold_back,
    read_examples,
)
from encort.training.data.problems import Problems
from encort.training.data.sources import Source
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import Scores, TrainingTask

log = logging.getLogger("encort")

VALIDATION_SHARE = 0.1
_UNEVEN = 20
"""How many times as frequent as another a label is before we speak of it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A task with its checked examples and the encoder that is to learn from them."""

    task: TrainingTask
    pretrained: Pretrained
    examples: Examples

    @classmethod
    def read(
        cls,
        task: TrainingTask,
        model: str,
        sources: Mapping[str, Source],
        settings: TrainingSettings,
        *,
        columns: Mapping[str, str] | None = None,
        from_scratch: bool = False,
        config_changes: Mapping[str, Any] | None = None,
    ) -> "Prepared":
        """Read and check.

        Raises:
            DatasetError: The data cannot be trained on; everything that is wrong is listed.
            CheckpointError: The model cannot be, and nothing else is wrong.
        """
        problems = Problems()
        task, splits = _read(task, sources, columns or {}, problems)
        labels = task.labels(splits, sources, problems) if "train" in splits else []
        if "validation" not in sources and not problems:
            try:
                splits["train"], splits["validation"] = hold_back(splits["train"], VALIDATION_SHARE, settings.seed)
            except DatasetError as error:
                problems.add(str(error))
        try:
            pretrained = Pretrained.open(model, settings, from_scratch=from_scratch, config_changes=config_changes)
            task.check_model(pretrained)
        except CheckpointError as error:
            if not problems:
                raise
            problems.add(str(error))
        else:
            for split, rows in splits.items():
                task.check_lengths(rows, sources.get(split, sources["train"]), pretrained, problems)
        problems.check()
        return cls(task=task, pretrained=pretrained, examples=Examples(**splits, labels=labels))

    def network(self) -> Any:
        return self.task.network(self.pretrained, self.examples)

    def encoded(self) -> dict[str, datasets.Dataset]:
        """Inputs of the network of every split, memory-mapped from the cache of `datasets`."""
        return {split: self._encoded(rows) for split, rows in self.examples.splits.items()}

    def scores(self, found: Any, split: str) -> Scores:
        """How good what a `transformers.Trainer` found for a split is."""
        rows = self.examples.splits[split]
        return self.task.scores(found.predictions, found.label_ids, rows, self.pretrained, self.examples)

    def warn_imbalanced_labels(self) -> None:
        counts = self.task.counts(self.examples.train).most_common()
        if counts and counts[0][1] > _UNEVEN * counts[-1][1]:
            (most, many), (least, few) = counts[0], counts[-1]
            log.warning("labels are uneven: %s has %d examples, %s has %d; see the scores", most, many, least, few)

    def _encoded(self, rows: datasets.Dataset) -> datasets.Dataset:
        def encode(batch: Mapping[str, Any]) -> dict[str, Any]:
            columns = self.task.encode(batch, self.pretrained, self.examples)
            return {**columns, "length": [len(ids) for ids in columns["input_ids"]]}

        key = [rows._fingerprint, self.task.key, self.pretrained.version, self.examples.labels, code_version()]
        return rows.map(
            encode,
            batched=True,
            remove_columns=rows.column_names,
            new_fingerprint=hashlib.sha256(repr(key).encode()).hexdigest()[:16],
            desc="tokenize",
        )


def _read(
    task: TrainingTask, sources: Mapping[str, Source], columns: Mapping[str, str], problems: Problems
) -> tuple[TrainingTask, dict[str, datasets.Dataset]]:
    """The task as the training data wants it, and every split that could be read."""
    check_roles(task.schema, columns, problems)
    names = {split: find_columns(source, task.schema, problems, asked=columns) for split, source in sources.items()}
    train_names = names["train"]
    if train_names is not None:
        with contextlib.suppress(InputError):  # is told by the reading below
            task = task.for_rows(by_role(row, train_names) for row in sources["train"].rows())
    splits: dict[str, datasets.Dataset] = {}
    for split, found in names.items():
        if found is not None:
            rows = read_examples(sources[split], task.schema, problems, names=found, key=task.key)
            splits |= {} if rows is None else {split: rows}
    return task, splits
