"""`train`: labelled data and an encoder in, a checkpoint folder out."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from encort.runtime.common.errors import DatasetError
from encort.runtime.common.folders import check_replaceable, new_folder
from encort.training.data.sources import find_sources
from encort.training.features import Collator
from encort.training.fit import make_trainer, training_arguments
from encort.training.prepare import Prepared
from encort.training.report import REPORT_FILE, TrainingReport, write_report
from encort.training.resume import begin, unfinished_folder
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import Scores, TrainingTask


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
        task: What is learned, such as `TextClassification()`.
        model: Checkpoint folder or hub id of a pretrained encoder.
        train: A file (.csv, .tsv, .jsonl, .parquet, .conll, SQuAD's .json), or a folder or hub id with splits.
        output: Checkpoint folder to make, in Hugging Face layout.
        validation: The same, to choose the best weights by; None holds a tenth of the training data back.
        test: The same, to report on at the end.
        columns: Names of columns by role, such as `{"text": "message"}`, instead of the conventions.
        header: Names of the columns of .csv and .tsv files that do not begin with them.
        from_scratch: Begin with new weights of the model's settings.
        config_changes: Other values of these settings, such as `{"num_hidden_layers": 2}`; with `from_scratch`.
        overwrite: Replace an earlier checkpoint, and forget a training that was not finished.
        resume: Go on with a training that was not finished, if there is one.

    Raises:
        DatasetError: The data cannot be trained on; everything that is wrong with it is listed.
        CheckpointError: The model cannot be loaded.
        OutputExistsError: `output` exists, or a training of it that was not finished.
    """
    output, settings, columns = Path(output), settings or TrainingSettings(**task.defaults), columns or {}
    check_replaceable(output, marker=REPORT_FILE, overwrite=overwrite)
    sources = find_sources(str(train), validation=_name(validation), test=_name(test), header=header)
    folder = unfinished_folder(output.absolute())
    prepared = Prepared.read(
        task,
        str(model),
        sources,
        settings,
        columns=columns,
        from_scratch=from_scratch,
        config_changes=config_changes,
    )
    prepared.warn_imbalanced_labels()
    settings = settings.with_learning_rate(task.learning_rate(prepared.pretrained))
    plan = {
        "task": task.name,
        **prepared.pretrained.plan,
        "data": {split: source.version for split, source in sources.items()},
        "columns": columns,
        "header": header,
        "config_changes": config_changes or {},
        **asdict(settings),
    }
    transformers.set_seed(settings.seed)
    network, pretrained = prepared.network(), prepared.pretrained
    arguments = training_arguments(settings, metric=task.metric, folder=folder)
    state = begin(folder, plan, arguments, resume=resume, overwrite=overwrite)
    with arguments.main_process_first():
        encoded = prepared.encoded()
    trainer = make_trainer(
        network,
        arguments=arguments,
        patience=settings.patience,
        collator=Collator(pretrained.saved_tokenizer.pad_token_id),
        train=encoded["train"],
        validation=encoded["validation"],
        measure=lambda found: prepared.scores(found, "validation").metrics,
    )
    trainer.train(resume_from_checkpoint=state)
    check_finite(trainer.model, folder)
    scores = scores_of_splits(prepared, trainer, encoded)
    report = TrainingReport.of(prepared, scores, checkpoint=output, state=trainer.state, settings=settings)
    if trainer.is_world_process_zero():
        with new_folder(output, marker=REPORT_FILE, overwrite=overwrite) as complete:
            write_checkpoint(prepared, trainer.model, complete)
            write_report(report, complete)
        shutil.rmtree(folder)
    return report


def scores_of_splits(
    prepared: Prepared, trainer: transformers.Trainer, encoded: Mapping[str, datasets.Dataset]
) -> dict[str, Scores]:
    """How good a trained network is on every split but that which it learned from."""
    return {split: prepared.scores(trainer.predict(rows), split) for split, rows in encoded.items() if split != "train"}


def write_checkpoint(prepared: Prepared, network: Any, folder: Path) -> None:
    """Weights, settings and tokenizer, in Hugging Face layout."""
    prepared.task.save(network, folder)
    prepared.pretrained.saved_tokenizer.save_pretrained(folder)


def _name(source: str | Path | None) -> str | None:
    return None if source is None else str(source)


def check_finite(network: Any, folder: Path) -> None:
    """Refuse weights that have become useless, with which nothing can go on.

    Args:
        folder: The state of the training, which is thrown away.

    Raises:
        DatasetError: One is not a number.
    """
    if not all(bool(torch.isfinite(weights).all()) for weights in network.parameters()):
        shutil.rmtree(folder, ignore_errors=True)
        raise DatasetError("the training diverged: weights are not numbers; begin anew with a lower learning rate")
