"""Fine-tune an encoder to put texts into classes, with `transformers.Trainer`."""

import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score

from encort.runtime.errors import CheckpointError, DatasetError
from encort.runtime.folders import check_replaceable, is_missing_folder, new_folder
from encort.training.data import LabelledTexts, load_labelled_texts
from encort.training.settings import TrainingSettings, default_learning_rate

REPORT_FILE = "training.json"


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a training run gave.

    Attributes:
        checkpoint: Folder with model, tokenizer, label names and this report as `training.json`.
        metrics: On the validation data: `accuracy`, `macro_f1`, `loss`.
        train_rows: Rows trained on.
        validation_rows: Rows held out.
        seconds: Wall-clock time of the training.
        settings: What was set.
    """

    checkpoint: str
    metrics: Mapping[str, float]
    labels: list[str]
    train_rows: int
    validation_rows: int
    seconds: float
    settings: TrainingSettings


def train_text_classification(
    *,
    model: str | Path,
    train: str | Path,
    output: str | Path,
    validation: str | Path | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    settings: TrainingSettings | None = None,
    overwrite: bool = False,
) -> TrainingReport:
    """Fine-tune an encoder on labelled texts and keep the best epoch.

    Args:
        model: Checkpoint folder or hub id of a pretrained encoder.
        train: Table with a text and a label a row; see `load_labelled_texts` for files and columns.
        output: Checkpoint folder to make, in Hugging Face layout.
        validation: The same kind of table; None holds a tenth of `train` back.
        overwrite: Replace an earlier checkpoint.

    Raises:
        DatasetError: The data cannot be trained on.
        CheckpointError: The model cannot be loaded.
        OutputExistsError: `output` exists.
    """
    output, settings = Path(output), settings or TrainingSettings()
    check_replaceable(output, marker=REPORT_FILE, overwrite=overwrite)
    data = load_labelled_texts(
        Path(train),
        None if validation is None else Path(validation),
        text_column=text_column,
        label_column=label_column,
        seed=settings.seed,
    )
    transformers.set_seed(settings.seed)
    tokenizer, network = _load(str(model), data.labels, settings)
    with new_folder(output, marker=REPORT_FILE, overwrite=overwrite) as folder:
        trainer = _trainer(network, tokenizer, data, settings, folder / "steps")
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
        report = TrainingReport(
            checkpoint=str(output),
            metrics=_metrics(trainer),
            labels=data.labels,
            train_rows=len(data.train),
            validation_rows=len(data.validation),
            seconds=round(seconds, 1),
            settings=settings,
        )
        _save(trainer, tokenizer, report, folder)
    return report


def _load(model: str, labels: list[str], settings: TrainingSettings) -> tuple[Any, Any]:
    if is_missing_folder(model):
        raise CheckpointError(f"there is no checkpoint folder {model}")
    dropout = {} if settings.dropout is None else dict.fromkeys(_DROPOUTS, settings.dropout)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(model, trust_remote_code=False)
        network, info = transformers.AutoModelForSequenceClassification.from_pretrained(
            model,
            id2label=dict(enumerate(labels)),
            label2id={label: index for index, label in enumerate(labels)},
            # A head for other labels is replaced by a fresh one.
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
            **dropout,
        )
    except Exception as error:  # transformers raises whatever its parts raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{model} cannot be loaded as a pretrained encoder: {reason}") from error
    _check_loaded(model, tokenizer, network, info)
    return tokenizer, network


def _check_loaded(model: str, tokenizer: Any, network: Any, info: Mapping[str, Any]) -> None:
    """Only the head and the pooler may be new; everything else must come from the checkpoint."""
    # transformers 5 gives mismatched names with their shapes.
    mismatched = [name if isinstance(name, str) else name[0] for name in info["mismatched_keys"]]
    invented = [*info["missing_keys"], *mismatched]
    encoder = {name for name in network.base_model.state_dict() if not name.startswith("pooler.")}
    lacking = sorted(encoder.intersection(name.removeprefix(f"{network.base_model_prefix}.") for name in invented))
    if lacking:
        raise CheckpointError(f"{model} lacks weights of its own architecture, {lacking[0]} among them; save it whole")
    if len(tokenizer) > network.config.vocab_size:
        raise CheckpointError(
            f"{model}: the tokenizer has {len(tokenizer)} tokens, the model embeds {network.config.vocab_size}; "
            "they do not belong together"
        )


_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def _trainer(
    network: Any, tokenizer: Any, data: LabelledTexts, settings: TrainingSettings, steps: Path
) -> transformers.Trainer:
    max_length = _limit(network, tokenizer, settings.max_length)
    # Saved with the tokenizer: what is served is cut where the training was.
    tokenizer.model_max_length = max_length
    trainer = transformers.Trainer(
        model=network,
        args=_arguments(settings, network.config.hidden_size, steps),
        train_dataset=_tokenized(data.train, tokenizer, max_length),
        eval_dataset=_tokenized(data.validation, tokenizer, max_length),
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=_compute_metrics,
    )
    # Its log lines go to stdout, which belongs to the report.
    trainer.remove_callback(transformers.trainer_callback.ProgressCallback)
    trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
    trainer.add_callback(_Progress)
    return trainer


def _arguments(settings: TrainingSettings, hidden: int, steps: Path) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(steps),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        learning_rate=settings.learning_rate or default_learning_rate(hidden),
        weight_decay=settings.weight_decay,
        warmup_ratio=settings.warmup_ratio,
        seed=settings.seed,
        group_by_length=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_strategy="epoch",
        report_to="none",
    )


class _Progress(transformers.trainer_callback.ProgressCallback):  # type: ignore[misc] # untyped
    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        if self.training_bar is not None and "eval_accuracy" in (logs or {}):
            self.training_bar.set_postfix(accuracy=f"{logs['eval_accuracy']:.3f}")


def _limit(network: Any, tokenizer: Any, asked: int | None) -> int:
    positions = int(network.config.max_position_embeddings)
    if asked is not None and asked > positions:
        raise CheckpointError(f"max_length {asked} is more than the model's {positions} positions")
    return asked or min(int(tokenizer.model_max_length), positions)


def _tokenized(rows: datasets.Dataset, tokenizer: Any, max_length: int) -> datasets.Dataset:
    def tokenize(batch: Mapping[str, Any]) -> Any:
        return tokenizer(batch["text"], truncation=True, max_length=max_length)

    return rows.map(tokenize, batched=True, remove_columns=["text"], desc="tokenize")


def _compute_metrics(prediction: Any) -> dict[str, float]:
    found, expected = prediction.predictions.argmax(axis=1), prediction.label_ids
    return {
        "accuracy": float(accuracy_score(expected, found)),
        "macro_f1": float(f1_score(expected, found, average="macro")),
    }


def _metrics(trainer: transformers.Trainer) -> dict[str, float]:
    measured = trainer.evaluate()
    metrics = {name: measured[f"eval_{name}"] for name in ("accuracy", "macro_f1", "loss")}
    if math.isnan(metrics["loss"]):
        raise DatasetError("the training diverged: the loss is not a number; lower the learning rate")
    return metrics


def _save(trainer: transformers.Trainer, tokenizer: Any, report: TrainingReport, folder: Path) -> None:
    trainer.save_model(str(folder))
    tokenizer.save_pretrained(folder)
    (folder / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "training_args.bin").unlink(missing_ok=True)
    shutil.rmtree(folder / "steps")
