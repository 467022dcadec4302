"""Read and check everything that one head is trained with: its labelled data, and the encoder.

Nothing is trained before all of it has been checked, so that a user sees every problem at once.
"""

import contextlib
import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets

from encort.runtime.common.errors import CheckpointError, DatasetError, InputError
from encort.runtime.common.labelled_rows.columns import check_roles, values_by_role
from encort.runtime.common.labelled_rows.problems import Problems
from encort.training.data.examples import Examples, code_version, find_source_columns, hold_back, read_examples
from encort.training.data.sources import Source, find_sources
from encort.training.pretrained import Pretrained
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import Scores, TrainingTask

log = logging.getLogger("encort")

VALIDATION_SHARE = 0.1
IMBALANCE_RATIO = 20
"""A warning is logged if the most frequent label has more than this many times the examples of the rarest one."""


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """A head, and the labelled data that it learns from.

    Attributes:
        task: Task of the head, such as `TextClassification()`.
        train: File to train on; or folder or hub id with splits.
        validation: File, folder or hub id for the choice of the best weights; None holds back a part of the training
            data.
        test: File, folder or hub id for the report.
        columns: Names of columns by role, such as `{"text": "message"}`; they replace the conventions.
        header: Names of the columns, for .csv and .tsv files that do not begin with them.
    """

    task: TrainingTask
    train: str
    validation: str | None = None
    test: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    header: Sequence[str] | None = None

    def find_sources(self) -> dict[str, Source]:
        """Return the source of each split.

        Raises:
            DatasetError: One of them does not exist, or lacks its split.
        """
        return find_sources(self.train, validation=self.validation, test=self.test, header=self.header)


@dataclass(frozen=True, eq=False, kw_only=True)
class Prepared:
    """A head with its checked examples and the encoder that learns from them.

    Attributes:
        data: The head; its task is as the training data needs it.
        sources: Source of each split.
        examples: Examples of each split.
        pretrained: Settings and tokenizer of the encoder.
    """

    data: HeadData
    sources: Mapping[str, Source]
    examples: Examples
    pretrained: Pretrained

    @classmethod
    def read(
        cls,
        data: HeadData,
        model: str,
        settings: TrainingSettings,
        *,
        from_scratch: bool = False,
        config_changes: Mapping[str, Any] | None = None,
    ) -> "Prepared":
        """Read and check the data of a head, and open the encoder.

        Args:
            data: The head and where its data is.
            model: Checkpoint folder or hub id of the encoder.
            settings: Settings of the training.
            from_scratch: See `Pretrained.open`.
            config_changes: See `Pretrained.open`.

        Raises:
            DatasetError: The data cannot be trained on; all problems are listed, those of the model too.
            CheckpointError: The model cannot be trained, and nothing is wrong with the data.
        """
        sources, problems = data.find_sources(), Problems()
        task, pretrained = _open_model(
            data.task, model, settings, from_scratch=from_scratch, config_changes=config_changes
        )
        task, splits = _read_splits(task, data, sources, problems)
        labels = task.labels(splits, sources, problems) if "train" in splits else []
        if "validation" not in sources and not problems:
            try:
                splits["train"], splits["validation"] = hold_back(splits["train"], VALIDATION_SHARE, settings.seed)
            except DatasetError as error:
                problems.add(str(error))
        if isinstance(pretrained, CheckpointError):
            if problems:
                problems.add(str(pretrained))
                problems.check()
            raise pretrained
        for split, rows in splits.items():
            task.check_lengths(rows, sources.get(split, sources["train"]), pretrained, problems)
        problems.check()
        return cls(
            data=dataclasses.replace(data, task=task),
            sources=sources,
            examples=Examples(**splits, labels=labels),
            pretrained=pretrained,
        )

    @property
    def task(self) -> TrainingTask:
        """The task of the head, as the training data needs it."""
        return self.data.task

    @property
    def plan(self) -> dict[str, Any]:
        """Everything about the data that determines the final weights; a resumed training must have the same."""
        return {
            "task": self.task.name,
            **self.task.options,
            "data": {split: source.version for split, source in self.sources.items()},
            "columns": self.data.columns,
            "header": self.data.header,
        }

    def network(self) -> Any:
        """Return the encoder with this head, ready to be trained.

        Raises:
            CheckpointError: Its weights cannot be loaded.
        """
        return self.task.network(self.pretrained, self.examples)

    def encode(self) -> dict[str, datasets.Dataset]:
        """Return the inputs of the network for every split, memory-mapped from the cache of `datasets`."""
        return {split: self._encode(rows) for split, rows in self.examples.splits.items()}

    def scores(self, prediction: Any, split: str) -> Scores:
        """Return the scores of the network on a split.

        Args:
            prediction: What `transformers.Trainer.predict` gave for the inputs of the split.
            split: Name of the split.
        """
        rows = self.examples.splits[split]
        return self.task.scores(prediction.predictions, prediction.label_ids, rows, self.pretrained, self.examples)

    def decide(self, predict: Callable[[], Any]) -> "Prepared":
        """Return the head with what its task decides on the validation data; see `TrainingTask.decide`.

        Args:
            predict: Returns what `transformers.Trainer.predict` gives for the inputs of the validation data.
        """
        if not self.task.decides_on_validation:
            return self
        outputs, rows = predict().predictions, self.examples.validation
        task = self.task.decide(outputs, rows, self.pretrained, self.examples)
        return dataclasses.replace(self, data=dataclasses.replace(self.data, task=task))

    def validation_metrics(self, prediction: Any) -> Mapping[str, float]:
        """Return the metrics of a `transformers.EvalPrediction` on the validation data."""
        return self.scores(prediction, "validation").metrics

    def warn_imbalanced_labels(self) -> None:
        """Log a warning if one label is far more frequent than another in the training data."""
        counts = self.task.counts(self.examples.train).most_common()
        if counts and counts[0][1] > IMBALANCE_RATIO * counts[-1][1]:
            (frequent, most), (rare, least) = counts[0], counts[-1]
            log.warning(
                "labels are imbalanced: %s has %d examples, %s has %d; see the scores of each label",
                *(frequent, most, rare, least),
            )

    def _encode(self, rows: datasets.Dataset) -> datasets.Dataset:
        def encode_batch(batch: Mapping[str, Any]) -> dict[str, Any]:
            columns = self.task.encode(batch, self.pretrained, self.examples)
            return {**columns, "length": [len(ids) for ids in columns["input_ids"]]}

        key = [rows._fingerprint, self.task.key, self.pretrained.version, self.examples.labels, code_version()]
        return rows.map(
            encode_batch,
            batched=True,
            remove_columns=rows.column_names,
            new_fingerprint=hashlib.sha256(repr(key).encode()).hexdigest()[:16],
            desc="tokenize",
        )


def _open_model(
    task: TrainingTask, model: str, settings: TrainingSettings, **options: Any
) -> tuple[TrainingTask, Pretrained | CheckpointError]:
    """Return the task with what the model keeps, and the encoder; or the error that says why it cannot be trained."""
    try:
        pretrained = Pretrained.open(model, settings, **options)
        task.check_model(pretrained)
        return task.for_model(pretrained), pretrained
    except CheckpointError as error:
        return task, error


def _read_splits(
    task: TrainingTask, data: HeadData, sources: Mapping[str, Source], problems: Problems
) -> tuple[TrainingTask, dict[str, datasets.Dataset]]:
    """Return the task as the training data needs it, and the examples of every split that can be read."""
    check_roles(task.schema.rows, data.columns, problems)
    names = {
        split: find_source_columns(source, task.schema, problems, asked=data.columns)
        for split, source in sources.items()
    }
    train_names = names["train"]
    if train_names is not None:
        with contextlib.suppress(InputError):  # `read_examples` adds the same error to the problems
            task = task.for_rows(values_by_role(row, train_names) for row in sources["train"].rows())
    splits: dict[str, datasets.Dataset] = {}
    for split, names_of_split in names.items():
        if names_of_split is not None:
            rows = read_examples(sources[split], task.schema, problems, names=names_of_split, key=task.key)
            splits |= {} if rows is None else {split: rows}
    return task, splits
