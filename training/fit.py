"""The training itself, by `transformers.Trainer`."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from encort.training.settings import TrainingSettings


class LengthGrouped(Sampler[int]):
    """Rows at random, those of similar length side by side; the same in every epoch of that number.

    So a training that goes on in the middle of an epoch sees what it has not seen yet.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class Trainer(transformers.Trainer):  # type: ignore[misc] # untyped
    """Trains on rows of similar length, and judges rows in the order in which they are."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGrouped(self.train_dataset["length"][:], batch_size=batch_size, seed=self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def predict(self, test_dataset: Any, *_: Any, **__: Any) -> Any:
        # Our metrics are made for the rows of the validation data, which these need not be.
        self.compute_metrics = None
        return super().predict(test_dataset)


def make_trainer(
    network: Any,
    *,
    arguments: transformers.TrainingArguments,
    collator: Callable[[Any], Mapping[str, Any]],
    train: Dataset[Any],
    validation: Dataset[Any],
    measure: Callable[[Any], Mapping[str, float]] | None = None,
    patience: int | None = None,
    trainer_class: type[Trainer] = Trainer,
) -> Any:
    """A trainer that keeps the weights which are best by `arguments.metric_for_best_model`.

    Args:
        collator: Rows to a batch of tensors.
        train: Inputs of the network, `labels` and `length` among them.
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
        callbacks=[_AtTheEnd(), *([] if patience is None else [EarlyStoppingCallback(patience)])],
    )
    # Every loss of ours is the mean of its batch, whatever arguments a `forward` would take.
    trainer.model_accepts_loss_kwargs = False
    # Its log lines go to stdout, which belongs to the report.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Progress)
    return trainer


def training_arguments(settings: TrainingSettings, *, metric: str, folder: Path) -> transformers.TrainingArguments:
    """What transformers calls our settings.

    Args:
        metric: That chooses the best weights, more is better.
        folder: For the state of the training.
    """
    assert settings.learning_rate is not None
    # transformers hands the precision on by this variable, and would take that of an earlier training from it.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    has_gpu = torch.cuda.is_available()
    when = "epoch" if settings.save_steps is None else "steps"
    return transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule.value,
        warmup_ratio=settings.warmup_ratio,
        bf16=(has_gpu and torch.cuda.is_bf16_supported()) if settings.bf16 is None else settings.bf16,
        seed=settings.seed,
        remove_unused_columns=False,
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        eval_strategy=when,
        save_strategy=when,
        eval_steps=settings.save_steps,
        save_steps=settings.save_steps or 500,
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        logging_steps=0.02,
        report_to="none",
    )


class _AtTheEnd(transformers.TrainerCallback):  # type: ignore[misc] # untyped
    """The last weights are judged too, however many steps there are."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.save_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True


class _Progress(ProgressCallback):  # type: ignore[misc] # untyped
    """A bar for the whole training, with the metric of the last evaluation."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        found = (logs or {}).get(f"eval_{args.metric_for_best_model}")
        if self.training_bar is not None and found is not None:
            self.training_bar.set_postfix({args.metric_for_best_model: f"{found:.3f}"})
