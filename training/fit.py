"""The training itself, by `transformers.Trainer`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, ProgressCallback

from encort.training.settings import TrainingSettings, default_learning_rate


def make_trainer(
    network: Any,
    *,
    arguments: transformers.TrainingArguments,
    collator: Callable[[Any], Mapping[str, Any]],
    train: torch.utils.data.Dataset[Any],
    validation: torch.utils.data.Dataset[Any],
    measure: Callable[[Any], Mapping[str, float]] | None = None,
    patience: int | None = None,
    trainer_class: type[transformers.Trainer] = transformers.Trainer,
) -> Any:
    """A trainer that keeps the weights which are best by `arguments.metric_for_best_model`.

    Args:
        collator: Rows to a batch of tensors.
        train: Inputs of the network, `labels` among them.
        validation: The same.
        measure: Metrics of a `transformers.EvalPrediction`.
        patience: Evaluations in a row that may be no better before it stops.
    """
    trainer = trainer_class(
        model=network,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        compute_metrics=measure,
        callbacks=[] if patience is None else [EarlyStoppingCallback(patience)],
    )
    # Its log lines go to stdout, which belongs to the report.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Progress)
    return trainer


def training_arguments(
    settings: TrainingSettings, *, metric: str, hidden: int, folder: Path
) -> transformers.TrainingArguments:
    """What transformers calls our settings.

    Args:
        metric: That chooses the best weights, more is better.
        hidden: Width of the encoder.
        folder: For the state of the training.
    """
    has_gpu = torch.cuda.is_available()
    when = "epoch" if settings.save_steps is None else "steps"
    return transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate or default_learning_rate(hidden),
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule.value,
        warmup_ratio=settings.warmup_ratio,
        bf16=(has_gpu and torch.cuda.is_bf16_supported()) if settings.bf16 is None else settings.bf16,
        seed=settings.seed,
        group_by_length=True,
        remove_unused_columns=False,
        dataloader_pin_memory=has_gpu,
        use_cpu=not has_gpu,
        ddp_find_unused_parameters=False,
        eval_strategy=when,
        save_strategy=when,
        eval_steps=settings.save_steps,
        save_steps=settings.save_steps or 500,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_steps=0.02,
        report_to="none",
    )


class _Progress(ProgressCallback):  # type: ignore[misc] # untyped
    """A bar for the whole training, with the metric of the last evaluation."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        found = (logs or {}).get(f"eval_{args.metric_for_best_model}")
        if self.training_bar is not None and found is not None:
            self.training_bar.set_postfix({args.metric_for_best_model: f"{found:.3f}"})
