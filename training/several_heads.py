"""Several heads on one shared encoder, trained together: a batch for one, a batch for another."""

import dataclasses
import functools
import json
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_pt_utils import get_length_grouped_indices

from encort.runtime.errors import DatasetError
from encort.runtime.folders import check_replaceable, new_folder
from encort.training.features import Collator
from encort.training.fit import make_trainer, training_arguments
from encort.training.prepare import Prepared
from encort.training.report import REPORT_FILE, TrainingReport, write_report
from encort.training.settings import TrainingSettings
from encort.training.sources import find_sources
from encort.training.task import TrainingTask
from encort.training.train import check_finite, write_checkpoint
from encort.training.unfinished import begin, unfinished_folder

METRIC = "score"
"""The mean of the heads' own metrics, which chooses the best weights."""


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """One of the heads, and what it learns from.

    Attributes:
        task: What it is for.
        train: See `train`.
        validation: See `train`.
    """

    task: TrainingTask
    train: str
    validation: str | None = None


def train_several_heads(
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
            `encort export OUTPUT/*/` makes one bundle of them.
        model: See `train`, as all others.

    Returns:
        What each head learned.

    Raises:
        DatasetError: See `train`; or there is only one head.
    """
    output, settings = Path(output), settings or TrainingSettings()
    check_replaceable(output, marker=REPORT_FILE, overwrite=overwrite)
    if len(heads) < 2:
        raise DatasetError(f"several heads are at least two, got {len(heads)}; for one there is its own command")
    found = {name: find_sources(head.train, validation=head.validation) for name, head in heads.items()}
    prepared = {
        name: Prepared.read(
            head.task, str(model), found[name], settings, from_scratch=from_scratch, config_changes=config_changes
        )
        for name, head in heads.items()
    }
    plan = {
        "heads": {name: [head.task.name, *(s.version for s in found[name].values())] for name, head in heads.items()},
        "model": str(model),
        "from_scratch": from_scratch,
        "config_changes": config_changes or {},
        "settings": asdict(settings),
    }
    pretrained = next(iter(prepared.values())).pretrained
    folder = unfinished_folder(output.absolute())
    arguments = training_arguments(settings, metric=METRIC, hidden=pretrained.config.hidden_size, folder=folder)
    with arguments.main_process_first(local=False):
        is_main = arguments.process_index == 0
        state = begin(folder, plan, resume=resume, overwrite=overwrite, is_main=is_main)
    with arguments.main_process_first():
        encoded = {name: each.encoded() for name, each in prepared.items()}
    transformers.set_seed(settings.seed)
    networks = {name: each.network() for name, each in prepared.items()}
    share_encoder(list(networks.values()))
    pad = pretrained.saved_tokenizer.pad_token_id
    trainer = _trainer(networks, prepared, encoded, arguments=arguments, settings=settings, pad_token_id=pad)
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if state is None else str(state))
    seconds = round(time.perf_counter() - start, 1)
    check_finite(trainer.state.log_history)
    scores = {
        name: each.scores(trainer.judges[name].predict(encoded[name]["validation"]), "validation")
        for name, each in prepared.items()
    }
    reports = {
        name: TrainingReport(
            task=each.task.name,
            model=str(model),
            checkpoint=str(output / name),
            metrics={"validation": scores[name].metrics},
            rows={split: len(rows) for split, rows in each.examples.splits.items()},
            label_counts=dict(each.task.counts(each.examples.train)),
            labels=list(each.examples.labels),
            seconds=seconds,
            history=trainer.state.log_history,
            settings=settings,
        )
        for name, each in prepared.items()
    }
    if trainer.is_world_process_zero():
        with new_folder(output, marker=REPORT_FILE, overwrite=overwrite) as complete:
            for name, each in prepared.items():
                write_checkpoint(each, networks[name], complete / name)
                write_report(reports[name], {"validation": scores[name]}, complete / name)
            summary = {name: report.summary for name, report in reports.items()}
            (complete / REPORT_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder)
    return reports


def share_encoder(networks: Sequence[Any]) -> None:
    """Put the parts of the first network's encoder into the others, so that there is one of each."""
    first, *others = (network.base_model for network in networks)
    parts = dict(first.named_children())
    for other in others:
        for name, part in other.named_children():
            # A pooler may be there for one head and not for another.
            if name in parts and part is not None:
                setattr(other, name, parts[name])


class Together(torch.nn.Module):
    """Several networks; each batch goes through one of them."""

    accepts_loss_kwargs = False  # so that transformers feeds it its inputs alone

    def __init__(self, networks: Mapping[str, Any]) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleDict(dict(networks))

    def forward(self, head: str, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of a batch for one head."""
        return {"loss": self.networks[head](**inputs).loss}


class Batches(torch.utils.data.Dataset[dict[str, Any]]):
    """Batches in place of rows, each of one head and of similar lengths; a sampler mixes them."""

    def __init__(self, rows: Mapping[str, datasets.Dataset], batch_size: int) -> None:
        self._rows = rows
        self._batches = [
            (name, order[start : start + batch_size])
            for name, each in rows.items()
            for order in [get_length_grouped_indices([len(ids) for ids in each["input_ids"]], batch_size)]
            for start in range(0, len(order), batch_size)
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        name, numbers = self._batches[index]
        return {"head": name, "rows": [self._rows[name][number] for number in numbers]}


class _AlternatingTrainer(transformers.Trainer):  # type: ignore[misc] # untyped
    """Trains all heads, and has each judged by itself."""

    control: transformers.TrainerControl
    judges: Mapping[str, transformers.Trainer]
    metrics: Mapping[str, str]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, judge in self.judges.items():
            found |= judge.evaluate(metric_key_prefix=f"eval_{name}")
        found["eval_loss"] = statistics.fmean(found[f"eval_{name}_loss"] for name in self.judges)
        found[f"eval_{METRIC}"] = statistics.fmean(found[f"eval_{name}_{self.metrics[name]}"] for name in self.judges)
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found


def _trainer(
    networks: Mapping[str, Any],
    prepared: Mapping[str, Prepared],
    encoded: Mapping[str, Mapping[str, datasets.Dataset]],
    *,
    arguments: transformers.TrainingArguments,
    settings: TrainingSettings,
    pad_token_id: int,
) -> _AlternatingTrainer:
    collator = Collator(pad_token_id)
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
    together = dataclasses.replace(
        arguments,
        per_device_train_batch_size=1,  # of whole batches
        group_by_length=False,
        save_safetensors=False,  # which refuses weights that are shared
        ddp_find_unused_parameters=True,
    )
    trainer: _AlternatingTrainer = make_trainer(
        Together(networks),
        arguments=together,
        patience=settings.patience,
        collator=lambda items: {"head": items[0]["head"], **collator(items[0]["rows"])},
        train=Batches({name: splits["train"] for name, splits in encoded.items()}, settings.batch_size),
        validation=Batches({name: splits["validation"] for name, splits in encoded.items()}, settings.batch_size),
        trainer_class=_AlternatingTrainer,
    )
    trainer.judges = judges
    trainer.metrics = {name: each.task.metric for name, each in prepared.items()}
    return trainer


def _measure(prepared: Prepared, found: Any) -> Mapping[str, float]:
    return prepared.scores(found, "validation").metrics
