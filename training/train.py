"""Train an encoder: labelled data in, a checkpoint folder out.

`TrainingRun.run` is the walk of every training. `train` trains one head by it, and `multi_head` trains several.
"""

import dataclasses
import functools
import shutil
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from encort.runtime.common.checkpoints.quiet import quiet
from encort.runtime.common.errors import DatasetError
from encort.runtime.common.folders import check_replaceable, check_writable, new_folder
from encort.training.disk_errors import translated_disk_errors
from encort.training.fit import Head, Trainers, training_arguments
from encort.training.prepare import HeadData, Prepared
from encort.training.progress import quiet_libraries
from encort.training.report import REPORT_FILE, TrainingReport, write_report
from encort.training.resume import prepare_run, unfinished_folder
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import TrainingTask


def train(
    task: TrainingTask,
    *,
    model: str | Path,
    train: str | Path,
    output: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    header: Sequence[str] | None = None,
    from_scratch: bool = False,
    config_changes: Mapping[str, Any] | None = None,
    settings: TrainingSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> TrainingReport:
    """Fine-tune an encoder on labelled data and keep its best weights.

    Args:
        task: Task to learn, such as `TextClassification()`.
        model: Checkpoint folder or hub id of a pretrained encoder.
        train: A file (.csv, .tsv, .jsonl, .parquet, .conll, .json), or a folder or hub id with splits.
        output: Checkpoint folder to make, in Hugging Face layout.
        validation: File, folder or hub id for the choice of the best weights; None holds back a tenth of the training
            data.
        test: File, folder or hub id for the report at the end.
        columns: Names of columns by role, such as `{"text": "message"}`; they replace the conventions.
        header: Names of the columns, for .csv and .tsv files that do not begin with them.
        from_scratch: Start with new weights for the settings of the model.
        config_changes: New values of the model's settings, such as `{"num_hidden_layers": 2}`; with `from_scratch`.
        settings: Settings of the training; None takes those that suit the task.
        overwrite: Replace an earlier checkpoint, and delete the state of an unfinished training.
        resume: Go on with an unfinished training, if there is one.

    Returns:
        Metrics, scores of each label, and the course of the training.

    Raises:
        DatasetError: The data cannot be trained on; all of its problems are listed.
        CheckpointError: The model cannot be loaded.
        OutputExistsError: `output` exists, or an unfinished training of it.
    """
    data = HeadData(
        task=task,
        train=str(train),
        validation=None if validation is None else str(validation),
        test=None if test is None else str(test),
        columns=columns or {},
        header=header,
    )
    run = _SingleHeadRun(
        data={task.name: data},
        model=str(model),
        output=Path(output),
        settings=settings or TrainingSettings(**task.defaults),
        from_scratch=from_scratch,
        config_changes=config_changes or {},
        overwrite=overwrite,
        resume=resume,
    )
    return run.run()[task.name]


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingRun(ABC):
    """One training run: it trains one encoder with its heads, and writes a checkpoint folder for each head.

    `run` is the walk, with the steps `prepare`, `fit`, `decide`, `score` and `write`. The methods from `metric` to
    `write_summary` are what differs between one head and several.

    Attributes:
        data: Heads by name, each with its labelled data.
        model: Checkpoint folder or hub id of the encoder.
        output: Folder to make.
        settings: Settings of the training; without a learning rate, the heads choose one.
        from_scratch: See `train`.
        config_changes: See `train`.
        overwrite: See `train`.
        resume: See `train`.
    """

    data: Mapping[str, HeadData]
    model: str
    output: Path
    settings: TrainingSettings
    from_scratch: bool = False
    config_changes: Mapping[str, Any] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = False

    def run(self) -> dict[str, TrainingReport]:
        """Train, write the checkpoints, and return the report of each head.

        Raises:
            InputError: The output cannot be written, at the start or later, for example because the disk is full.
        """
        with translated_disk_errors(self.output), quiet_libraries():
            return self._run()

    def _run(self) -> dict[str, TrainingReport]:
        check_replaceable(self.output, marker=REPORT_FILE, overwrite=self.overwrite)
        check_writable(self.output)
        prepared = self.prepare()
        settings = self.settings.with_learning_rate(
            min(head.task.learning_rate(head.pretrained) for head in prepared.values())
        )
        heads, trainers = self.fit(prepared, settings)
        heads = self.decide(heads, trainers)
        reports = self.score(heads, trainers, settings)
        if trainers.main.is_world_process_zero():
            self.write(heads, reports)
        return reports

    def prepare(self) -> dict[str, Prepared]:
        """Read the data of every head, open its encoder, and warn about imbalanced labels."""
        prepared = self.read_heads()
        for head in prepared.values():
            head.warn_imbalanced_labels()
        return prepared

    def fit(self, prepared: Mapping[str, Prepared], settings: TrainingSettings) -> tuple[dict[str, Head], Trainers]:
        """Train the heads; their networks have the best weights afterwards."""
        transformers.set_seed(settings.seed)
        networks = {name: head.network() for name, head in prepared.items()}
        arguments = training_arguments(settings, metric=self.metric, folder=self.state_folder)
        state = prepare_run(
            self.state_folder,
            self._plan(prepared, settings),
            arguments,
            resume=self.resume,
            overwrite=self.overwrite,
        )
        with arguments.main_process_first():
            heads = {
                name: Head(prepared=head, network=networks[name], inputs=head.encode())
                for name, head in prepared.items()
            }
        trainers = self.make_trainers(heads, arguments)
        with quiet(transformers):
            trainers.main.train(resume_from_checkpoint=state)
        self._check_finite(trainers.main.model)
        return heads, trainers

    def decide(self, heads: Mapping[str, Head], trainers: Trainers) -> dict[str, Head]:
        """Return the heads with what their tasks decide on the validation data, now that the weights are final."""
        return {
            name: dataclasses.replace(
                head,
                prepared=head.prepared.decide(
                    functools.partial(trainers.evaluators[name].predict, head.inputs["validation"])
                ),
            )
            for name, head in heads.items()
        }

    def score(
        self, heads: Mapping[str, Head], trainers: Trainers, settings: TrainingSettings
    ) -> dict[str, TrainingReport]:
        """Return the report of each head, with its scores on every split but the one it was trained on."""
        reports = {}
        for name, head in heads.items():
            evaluator, prepared = trainers.evaluators[name], head.prepared
            scores = {
                split: prepared.scores(evaluator.predict(inputs), split)
                for split, inputs in head.inputs.items()
                if split != "train"
            }
            reports[name] = TrainingReport.from_scores(
                prepared,
                scores,
                checkpoint=self.head_folder(self.output, name),
                history=trainers.main.state.log_history,
                settings=settings,
            )
        return reports

    def write(self, heads: Mapping[str, Head], reports: Mapping[str, TrainingReport]) -> None:
        """Write the checkpoint and the report of each head, and delete the state of the training."""
        with new_folder(self.output, marker=REPORT_FILE, overwrite=self.overwrite) as folder:
            for name, head in heads.items():
                with quiet(transformers):
                    head.write_checkpoint(self.head_folder(folder, name))
                write_report(reports[name], self.head_folder(folder, name))
            self.write_summary(reports, folder)
            _equalize_modes(folder)
        shutil.rmtree(self.state_folder)

    @property
    @abstractmethod
    def metric(self) -> str:
        """The metric that chooses the best weights; more is better."""

    @abstractmethod
    def plan_heads(self, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
        """Return the part of the plan that is about the heads; see `Prepared.plan`."""

    @abstractmethod
    def make_trainers(self, heads: Mapping[str, Head], arguments: transformers.TrainingArguments) -> Trainers:
        """Return the trainer of all heads, and the trainers that evaluate them."""

    @abstractmethod
    def head_folder(self, folder: Path, name: str) -> Path:
        """Return the checkpoint folder of a head in the folder that the run writes."""

    def read_heads(self) -> dict[str, Prepared]:
        """Return every head with its checked data and its encoder."""
        return {name: self.read_head(data) for name, data in self.data.items()}

    def write_summary(self, reports: Mapping[str, TrainingReport], folder: Path) -> None:
        """Write a summary of all heads, if their own reports are in other folders."""
        return

    @property
    def state_folder(self) -> Path:
        """Folder of the state of the training, until it is finished."""
        return unfinished_folder(self.output.absolute())

    def read_head(self, data: HeadData) -> Prepared:
        """Read and check the data of one head, and open its encoder; see `Prepared.read`."""
        return Prepared.read(
            data, self.model, self.settings, from_scratch=self.from_scratch, config_changes=self.config_changes
        )

    def _plan(self, prepared: Mapping[str, Prepared], settings: TrainingSettings) -> dict[str, Any]:
        pretrained = next(iter(prepared.values())).pretrained
        return {
            **self.plan_heads(prepared),
            **pretrained.plan,
            "config_changes": self.config_changes,
            **asdict(settings),
        }

    def _check_finite(self, network: torch.nn.Module) -> None:
        """Refuse weights that are not numbers. The state of the training is deleted, since nothing can go on from it.

        Raises:
            DatasetError: A weight is NaN or infinity.
        """
        if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
            shutil.rmtree(self.state_folder, ignore_errors=True)
            raise DatasetError("the training diverged: weights are not numbers; start anew with a lower learning rate")


def _equalize_modes(folder: Path) -> None:
    """Give all files of checkpoints the permissions of the report. safetensors writes files for their owner alone."""
    for report in folder.rglob(REPORT_FILE):
        for file in report.parent.glob("*"):
            if file.is_file():
                file.chmod(stat.S_IMODE(report.stat().st_mode))


class _SingleHeadRun(TrainingRun):
    """Trains one head; its checkpoint is the output folder itself."""

    @property
    def metric(self) -> str:
        (data,) = self.data.values()
        return data.task.metric

    def plan_heads(self, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
        (head,) = prepared.values()
        return head.plan

    def make_trainers(self, heads: Mapping[str, Head], arguments: transformers.TrainingArguments) -> Trainers:
        ((name, head),) = heads.items()
        trainer = head.make_trainer(arguments, patience=self.settings.patience)
        return Trainers(main=trainer, evaluators={name: trainer})

    def head_folder(self, folder: Path, name: str) -> Path:
        return folder
