"""`train`: labelled data and an encoder in, a checkpoint folder out."""

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import transformers

from encort.runtime.errors import DatasetError
from encort.runtime.folders import check_replaceable, new_folder
from encort.training.features import Collator
from encort.training.fit import make_trainer, training_arguments
from encort.training.prepare import Prepared
from encort.training.report import REPORT_FILE, TrainingReport, write_report
from encort.training.settings import TrainingSettings
from encort.training.sources import find_sources
from encort.training.task import TrainingTask
from encort.training.unfinished import begin, unfinished_folder


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
    output, settings, columns = Path(output), settings or TrainingSettings(), columns or {}
    check_replaceable(output, marker=REPORT_FILE, overwrite=overwrite)
    sources = find_sources(str(train), validation=_name(validation), test=_name(test), header=header)
    folder = unfinished_folder(output.absolute())
    plan = {
        "task": task.name,
        "model": str(model),
        "data": {split: source.version for split, source in sources.items()},
        "columns": columns,
        "from_scratch": from_scratch,
        "config_changes": config_changes or {},
        "settings": asdict(settings),
    }
    prepared = Prepared.read(
        task,
        str(model),
        sources,
        settings,
        columns=columns,
        from_scratch=from_scratch,
        config_changes=config_changes,
    )
    prepared.speak_of_uneven_labels()
    pretrained, examples = prepared.pretrained, prepared.examples
    arguments = training_arguments(settings, metric=task.metric, hidden=pretrained.config.hidden_size, folder=folder)
    with arguments.main_process_first(local=False):
        is_main = arguments.process_index == 0
        state = begin(folder, plan, resume=resume, overwrite=overwrite, is_main=is_main)
    with arguments.main_process_first():
        encoded = prepared.encoded()
    transformers.set_seed(settings.seed)
    trainer = make_trainer(
        prepared.network(),
        arguments=arguments,
        patience=settings.patience,
        collator=Collator(pretrained.saved_tokenizer.pad_token_id),
        train=encoded["train"],
        validation=encoded["validation"],
        measure=lambda found: prepared.scores(found, "validation").metrics,
    )
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if state is None else str(state))
    seconds = time.perf_counter() - start
    check_finite(trainer.state.log_history)
    scores = {split: prepared.scores(trainer.predict(encoded[split]), split) for split in encoded if split != "train"}
    report = TrainingReport(
        task=task.name,
        model=str(model),
        checkpoint=str(output),
        metrics={split: found.metrics for split, found in scores.items()},
        rows={split: len(rows) for split, rows in examples.splits.items()},
        label_counts=dict(task.counts(examples.train)),
        labels=list(examples.labels),
        seconds=round(seconds, 1),
        history=trainer.state.log_history,
        settings=settings,
    )
    if trainer.is_world_process_zero():
        with new_folder(output, marker=REPORT_FILE, overwrite=overwrite) as complete:
            write_checkpoint(prepared, trainer.model, complete)
            write_report(report, scores, complete)
        shutil.rmtree(folder)
    return report


def write_checkpoint(prepared: Prepared, network: Any, folder: Path) -> None:
    """Weights, settings and tokenizer, in Hugging Face layout."""
    prepared.task.save(network, folder)
    prepared.pretrained.saved_tokenizer.save_pretrained(folder)


def _name(source: str | Path | None) -> str | None:
    return None if source is None else str(source)


def check_finite(history: Sequence[Mapping[str, float]]) -> None:
    """Refuse weights that have become useless.

    Raises:
        DatasetError: The last loss on validation data is not a number.
    """
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    if losses and not math.isfinite(losses[-1]):
        raise DatasetError("the training diverged: the loss is not a number; lower the learning rate")
