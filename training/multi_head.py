"""Train several heads on one encoder: each batch has rows of one head, and the batches of the heads are mixed."""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch.utils.data import ConcatDataset, Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from encort.runtime.common.errors import DatasetError, InputError
from encort.training.features import Collator
from encort.training.fit import Head, Trainer, Trainers, make_trainer
from encort.training.prepare import HeadData, Prepared
from encort.training.report import REPORT_FILE, TrainingReport
from encort.training.settings import TrainingSettings
from encort.training.train import TrainingRun

METRIC = "score"
"""Mean of the heads' own metrics; it chooses the best weights."""


def train_multi_head(
    heads: Mapping[str, HeadData],
    *,
    model: str | Path,
    output: str | Path,
    settings: TrainingSettings | None = None,
    from_scratch: bool = False,
    config_changes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> dict[str, TrainingReport]:
    """Fine-tune one encoder with several heads and keep its best weights.

    Args:
        heads: Heads by name, at least two, each with its labelled data.
        model: See `train`.
        output: Folder to make, with one checkpoint folder per head, named after it. Their encoders are equal, so that
            `encort export` makes one bundle of them.
        settings: See `train`; None takes the general settings.
        from_scratch: See `train`.
        config_changes: See `train`.
        overwrite: See `train`.
        resume: See `train`.

    Returns:
        The report of each head.

    Raises:
        DatasetError: The data cannot be trained on, or the heads cannot share an encoder.
        InputError: The name of a head is not an identifier, so that it cannot name a folder.
        CheckpointError: The model cannot be loaded.
        OutputExistsError: `output` exists, or an unfinished training of it.
    """
    _check_heads(heads)
    run = _MultiHeadRun(
        data=heads,
        model=str(model),
        output=Path(output),
        settings=settings or TrainingSettings(),
        from_scratch=from_scratch,
        config_changes=config_changes or {},
        overwrite=overwrite,
        resume=resume,
    )
    return run.run()


def _check_heads(heads: Mapping[str, HeadData]) -> None:
    if len(heads) < 2:
        raise DatasetError(
            f"multi-head training needs at least two heads, got {len(heads)}; for one, use the command of its task"
        )
    for name, head in heads.items():
        if not name.isidentifier():
            raise InputError(f"the head {name!r} cannot name a folder; a name has letters, digits and underscores")
        if not head.task.shares_encoder:
            raise DatasetError(f"{name}: {head.task.name} cannot share its encoder with other heads; train it alone")


class _MultiHeadRun(TrainingRun):
    """Trains several heads; each has a checkpoint folder of its own in the output folder."""

    @property
    def metric(self) -> str:
        return METRIC

    def read_heads(self) -> dict[str, Prepared]:
        """Check the data of every head before an error is raised, so that a user sees all problems at once."""
        prepared, errors = {}, []
        for name, data in self.data.items():
            try:
                prepared[name] = self.read_head(data)
            except DatasetError as error:
                errors.append(f"{name}: {error}")
        if errors:
            raise DatasetError("\n".join(errors))
        return prepared

    def plan_heads(self, prepared: Mapping[str, Prepared]) -> dict[str, Any]:
        # A list keeps the order of the heads, which is the order of the weights in a saved state.
        return {"heads": [{"name": name, **head.plan} for name, head in prepared.items()]}

    def make_trainers(self, heads: Mapping[str, Head], arguments: transformers.TrainingArguments) -> Trainers:
        share_encoder([head.network for head in heads.values()])
        evaluators = {name: head.make_trainer(arguments) for name, head in heads.items()}
        trainer: _MultiHeadTrainer = make_trainer(
            MultiHeadModel({name: head.network for name, head in heads.items()}),
            # A batch leaves the other heads without gradients.
            arguments=dataclasses.replace(arguments, ddp_find_unused_parameters=True),
            collator=_MultiHeadCollator(next(iter(heads.values())).collator),
            train=MultiHeadRows({name: head.inputs["train"] for name, head in heads.items()}),
            validation=MultiHeadRows({name: head.inputs["validation"] for name, head in heads.items()}),
            patience=self.settings.patience,
            trainer_class=_MultiHeadTrainer,
        )
        trainer.evaluators = evaluators
        trainer.metrics = {name: head.prepared.task.metric for name, head in heads.items()}
        return Trainers(main=trainer, evaluators=evaluators)

    def head_folder(self, folder: Path, name: str) -> Path:
        return folder / name

    def write_summary(self, reports: Mapping[str, TrainingReport], folder: Path) -> None:
        summary = {name: report.summary for name, report in reports.items()}
        (folder / REPORT_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")


def share_encoder(networks: Sequence[Any]) -> None:
    """Make all networks use the encoder of the first one.

    A pooler is not part of every network. The networks that have one share it.
    """
    parts: dict[str, Any] = {}
    for network in networks:
        for name, part in network.base_model.named_children():
            setattr(network.base_model, name, parts.setdefault(name, part))


class MultiHeadModel(torch.nn.Module):
    """Several networks that share an encoder; each batch goes through one of them."""

    def __init__(self, networks: Mapping[str, Any]) -> None:
        """Take the networks by the names of their heads; see `share_encoder`."""
        super().__init__()
        self.networks = torch.nn.ModuleDict(dict(networks))
        # safetensors refuses shared weights, so each of them is saved under one name.
        self.register_state_dict_post_hook(_drop_other_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_forget_other_names)  # type: ignore[no-untyped-call]

    def forward(self, head: str, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss of a batch, a scalar.

        Args:
            head: Name of the head that the batch is for.
            inputs: Inputs of its network, with `labels` or positions.
        """
        return {"loss": self.networks[head](**inputs).loss}


def _drop_other_names(model: torch.nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Leave shared weights in a state under their first name only."""
    for name in set(state) - {f"{prefix}{name}" for name in _first_names(model)}:
        del state[name]


def _forget_other_names(model: torch.nn.Module, result: Any) -> None:
    """Do not report the other names of shared weights as missing."""
    result.missing_keys[:] = [name for name in result.missing_keys if name in _first_names(model)]


def _first_names(model: torch.nn.Module) -> set[str]:
    """Return the names of all weights; a shared weight has the first of its names."""
    return {name for name, _ in (*model.named_parameters(), *model.named_buffers())}


class MultiHeadRows(Dataset[dict[str, Any]]):
    """The rows of all heads, one head after the other. Each row has the name of its head in `head`."""

    def __init__(self, rows: Mapping[str, datasets.Dataset]) -> None:
        """Take the rows by the names of their heads."""
        self.lengths = {name: rows_of_head["length"][:] for name, rows_of_head in rows.items()}
        self._rows: ConcatDataset[dict[str, Any]] = ConcatDataset(list(rows.values()))
        self._heads = [name for name, rows_of_head in rows.items() for _ in range(len(rows_of_head))]

    def __len__(self) -> int:
        return len(self._heads)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"head": self._heads[index], **self._rows[index]}


class HeadBatchSampler(Sampler[int]):
    """Yields rows so that each batch has rows of one head, of similar length; the order of the batches is random.

    The last batch of a head is filled up with rows of this head that were drawn before. As with
    `LengthGroupedSampler`, the order depends on the seed and the number of the epoch alone.
    """

    def __init__(self, lengths: Mapping[str, Sequence[int]], *, batch_size: int, seed: int) -> None:
        """Take the lengths of the rows, in tokens, by the names of their heads."""
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch; accelerate calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(-(-len(lengths) // self._batch_size) * self._batch_size for lengths in self._lengths.values())

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        batches, first = [], 0
        for lengths in self._lengths.values():
            order = get_length_grouped_indices(lengths, self._batch_size, generator=generator)
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                filled = (batch + order * self._batch_size)[: self._batch_size]
                batches.append([first + index for index in filled])
            first += len(lengths)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[number]


class _MultiHeadTrainer(Trainer):
    """Trains all heads, and lets a trainer of its own evaluate each of them.

    Attributes:
        evaluators: Trainer by name of the head.
        metrics: Metric of each head that counts for `METRIC`.
    """

    control: transformers.TrainerControl
    evaluators: Mapping[str, transformers.Trainer]
    metrics: Mapping[str, str]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return HeadBatchSampler(self.train_dataset.lengths, batch_size=self.args.train_batch_size, seed=self.args.seed)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Return the metrics of all heads, each with the name of its head, and the means of the losses and metrics."""
        values: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            values |= evaluator.evaluate(metric_key_prefix=f"eval_{name}")
        values["eval_loss"] = statistics.fmean(values[f"eval_{name}_loss"] for name in self.evaluators)
        values[f"eval_{METRIC}"] = statistics.fmean(
            values[f"eval_{name}_{self.metrics[name]}"] for name in self.evaluators
        )
        self.log(values)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, values)
        return values


@dataclass(frozen=True)
class _MultiHeadCollator:
    """Makes a batch of rows of one head."""

    collator: Collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        (head,) = {row["head"] for row in rows}
        inputs = [{name: value for name, value in row.items() if name != "head"} for row in rows]
        return {"head": head, **self.collator(inputs)}
