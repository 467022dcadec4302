"""Several heads on one shared encoder, trained together: a batch for one, a batch for another."""

import dataclasses
import functools
import json
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch.utils.data import ConcatDataset, Dataset, Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from encort.runtime.common.errors import DatasetError
from encort.runtime.common.folders import check_replaceable, new_folder
from encort.training.data.sources import Source, find_sources
from encort.training.features import Collator
from encort.training.fit import Trainer, make_trainer, training_arguments
from encort.training.prepare import Prepared
from encort.training.report import REPORT_FILE, TrainingReport, write_report
from encort.training.resume import begin, unfinished_folder
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import TrainingTask
from encort.training.train import check_finite, scores_of_splits, write_checkpoint

METRIC = "score"
"""The mean of the heads' own metrics, which chooses the best weights."""


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """One of the heads, and what it learns from.

    Attributes:
        task: What it is for.
        train: See `train`, as the others.
    """

    task: TrainingTask
    train: str
    validation: str | None = None
    test: str | None = None
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    header: Sequence[str] | None = None

    def sources(self) -> dict[str, Source]:
        return find_sources(self.train, validation=self.validation, test=self.test, header=self.header)


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
    """Fine-tune one encoder with several heads.

    Args:
        heads: By name.
        output: Folder to make, with a checkpoint for every head under its name. Their encoders are equal, so that
            `encort export` makes one bundle of them.
        model: See `train`, as all others.

    Returns:
        What each head learned.

    Raises:
        DatasetError: See `train`; or these heads cannot share an encoder.
    """
    output, asked = Path(output), settings or TrainingSettings()
    check_replaceable(output, marker=REPORT_FILE, overwrite=overwrite)
    _check_heads(heads)
    folder = unfinished_folder(output.absolute())
    found = {name: head.sources() for name, head in heads.items()}

    def prepare(name: str) -> Prepared:
        return Prepared.read(
            heads[name].task,
            str(model),
            found[name],
            asked,
            columns=heads[name].columns,
            from_scratch=from_scratch,
            config_changes=config_changes,
        )

    prepared = _all_prepared({name: functools.partial(prepare, name) for name in heads})
    pretrained = next(iter(prepared.values())).pretrained
    settings = asked.with_learning_rate(min(head.task.learning_rate(pretrained) for head in heads.values()))
    plan = {
        # A list, since their order is that of the weights in a saved state.
        "heads": [_head_plan(name, head, found[name]) for name, head in heads.items()],
        **pretrained.plan,
        "config_changes": config_changes or {},
        **asdict(settings),
    }
    transformers.set_seed(settings.seed)
    networks = {name: each.network() for name, each in prepared.items()}
    arguments = training_arguments(settings, metric=METRIC, folder=folder)
    state = begin(folder, plan, arguments, resume=resume, overwrite=overwrite)
    with arguments.main_process_first():
        encoded = {name: each.encoded() for name, each in prepared.items()}
    trainer = _trainer(networks, prepared, encoded, arguments=arguments, patience=settings.patience)
    trainer.train(resume_from_checkpoint=state)
    check_finite(trainer.model, folder)
    reports = {}
    for name, each in prepared.items():
        scores = scores_of_splits(each, trainer.judges[name], encoded[name])
        reports[name] = TrainingReport.of(
            each, scores, checkpoint=output / name, state=trainer.state, settings=settings
        )
    if trainer.is_world_process_zero():
        with new_folder(output, marker=REPORT_FILE, overwrite=overwrite) as complete:
            for name, each in prepared.items():
                write_checkpoint(each, trainer.judges[name].model, complete / name)
                write_report(reports[name], complete / name)
            summary = {name: report.summary for name, report in reports.items()}
            (complete / REPORT_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder)
    return reports


def _head_plan(name: str, head: HeadData, sources: Mapping[str, Source]) -> dict[str, Any]:
    data = {split: source.version for split, source in sources.items()}
    return {"name": name, "task": head.task.name, "data": data, "columns": head.columns, "header": head.header}


def _check_heads(heads: Mapping[str, HeadData]) -> None:
    if len(heads) < 2:
        raise DatasetError(f"several heads are at least two, got {len(heads)}; for one there is its own command")
    for name, head in heads.items():
        if not head.task.shares_encoder:
            raise DatasetError(f"{name}: {head.task.name} cannot share its encoder with other heads; train it alone")


def _all_prepared(heads: Mapping[str, Callable[[], Prepared]]) -> dict[str, Prepared]:
    """Every head's data is checked before an error is raised, so that all problems are told at once."""
    prepared, errors = {}, []
    for name, prepare in heads.items():
        try:
            prepared[name] = prepare()
        except DatasetError as error:
            errors.append(f"{name}: {error}")
    if errors:
        raise DatasetError("\n".join(errors))
    return prepared


def share_encoder(networks: Sequence[Any]) -> None:
    """One encoder for all networks; a pooler, which not every head has, is one for all that have it."""
    parts: dict[str, Any] = {}
    for network in networks:
        for name, part in network.base_model.named_children():
            setattr(network.base_model, name, parts.setdefault(name, part))


class MultiHeadModel(torch.nn.Module):
    """Several networks; each batch goes through one of them."""

    def __init__(self, networks: Mapping[str, Any]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleDict(dict(networks))

    def forward(self, head: str, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of a batch for one head."""
        return {"loss": self.networks[head](**inputs).loss}


class RowsOfHeads(Dataset[dict[str, Any]]):
    """The rows of all heads, one head after the other, each row with the name of its head."""

    def __init__(self, rows: Mapping[str, datasets.Dataset]) -> None:
        self.lengths = {name: each["length"][:] for name, each in rows.items()}
        self._rows: ConcatDataset[dict[str, Any]] = ConcatDataset(list(rows.values()))
        self._heads = [name for name, each in rows.items() for _ in range(len(each))]

    def __len__(self) -> int:
        return len(self._heads)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"head": self._heads[index], **self._rows[index]}


class HeadBatchSampler(Sampler[int]):
    """Rows at random, so many in a row of one head as make a batch, those of similar length side by side.

    The last batch of a head is filled with some of its rows again.
    """

    def __init__(self, lengths: Mapping[str, Sequence[int]], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(-(-len(each) // self._batch_size) * self._batch_size for each in self._lengths.values())

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        batches, before = [], 0
        for each in self._lengths.values():
            order = get_length_grouped_indices(each, self._batch_size, generator=generator)
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                filled = (batch + order * self._batch_size)[: self._batch_size]
                batches.append([before + index for index in filled])
            before += len(each)
        for number in torch.randperm(len(batches), generator=generator).tolist():
            yield from batches[number]


class _MultiHeadTrainer(Trainer):
    """Trains all heads, and has each judged by itself."""

    control: transformers.TrainerControl
    judges: Mapping[str, transformers.Trainer]
    metrics: Mapping[str, str]

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        return HeadBatchSampler(self.train_dataset.lengths, batch_size=self.args.train_batch_size, seed=self.args.seed)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, judge in self.judges.items():
            found |= judge.evaluate(metric_key_prefix=f"eval_{name}")
        found["eval_loss"] = statistics.fmean(found[f"eval_{name}_loss"] for name in self.judges)
        found[f"eval_{METRIC}"] = statistics.fmean(found[f"eval_{name}_{self.metrics[name]}"] for name in self.judges)
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


@dataclass(frozen=True)
class _OneHead:
    """Rows of one head to its batch."""

    collator: Collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        (head,) = {row["head"] for row in rows}
        return {"head": head, **self.collator([{k: v for k, v in row.items() if k != "head"} for row in rows])}


def _trainer(
    networks: Mapping[str, Any],
    prepared: Mapping[str, Prepared],
    encoded: Mapping[str, Mapping[str, datasets.Dataset]],
    *,
    arguments: transformers.TrainingArguments,
    patience: int | None,
) -> _MultiHeadTrainer:
    share_encoder(list(networks.values()))
    collator = Collator(next(iter(prepared.values())).pretrained.saved_tokenizer.pad_token_id)
    judges = {
        name: make_trainer(
            network,
            arguments=arguments,
            collator=collator,
            train=encoded[name]["train"],
            validation=encoded[name]["validation"],
            measure=functools.partial(_measure, prepared[name]),
        )
        for name, network in networks.items()
    }
    trainer: _MultiHeadTrainer = make_trainer(
        MultiHeadModel(networks),
        # safetensors refuses weights that are shared; a batch leaves the other heads without gradients.
        arguments=dataclasses.replace(arguments, save_safetensors=False, ddp_find_unused_parameters=True),
        patience=patience,
        collator=_OneHead(collator),
        train=RowsOfHeads({name: splits["train"] for name, splits in encoded.items()}),
        validation=RowsOfHeads({name: splits["validation"] for name, splits in encoded.items()}),
        trainer_class=_MultiHeadTrainer,
    )
    trainer.judges = judges
    trainer.metrics = {name: each.task.metric for name, each in prepared.items()}
    return trainer


def _measure(prepared: Prepared, found: Any) -> Mapping[str, float]:
    return prepared.scores(found, "validation").metrics
