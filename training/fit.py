"""Set up `transformers.Trainer`, which does the training itself, for one head or for a network with several."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from torch.utils.data import Dataset, Sampler, SequentialSampler
from transformers.trainer_callback import EarlyStoppingCallback, PrinterCallback, ProgressCallback
from transformers.trainer_pt_utils import get_length_grouped_indices

from encort.runtime.common.checkpoints.majors import warmup
from encort.runtime.common.checkpoints.tokenizer import save_tokenizer
from encort.training.features import Collator
from encort.training.prepare import Prepared
from encort.training.progress import progress_callback
from encort.training.saved_state import seal
from encort.training.settings import TrainingSettings
from encort.training.tasks.base import LOSS


class LengthGroupedSampler(Sampler[int]):
    """Yields rows in random order, with rows of similar length next to each other.

    The order depends on the seed and the number of the epoch alone, not on torch's random state. A training that is
    resumed within an epoch therefore sees exactly the rows that it has not seen yet.
    """

    def __init__(self, lengths: Sequence[int], *, batch_size: int, seed: int) -> None:
        self._lengths, self._batch_size, self._seed = lengths, batch_size, seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the number of the epoch; accelerate calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed + self._epoch)
        return iter(get_length_grouped_indices(self._lengths, self._batch_size, generator=generator))


class Trainer(transformers.Trainer):  # type: ignore[misc] # untyped
    """Trains on batches of rows of similar length, evaluates rows in their own order, and seals its saved states.

    transformers groups evaluated rows by length too. Scores need the rows in the order of their examples.
    """

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(self.train_dataset["length"][:], batch_size=batch_size, seed=self.args.seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return SequentialSampler(eval_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            seal(Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}")

    def predict(self, test_dataset: Any, *_: Any, **__: Any) -> Any:
        """Return the outputs of the network for rows of any split, without metrics."""
        # The metrics need the examples of the validation data, and these rows may be of another split.
        self.compute_metrics = None
        return super().predict(test_dataset)


def make_trainer(
    network: Any,
    *,
    arguments: transformers.TrainingArguments,
    collator: Callable[[Any], Mapping[str, Any]],
    train: Dataset[Any],
    validation: Dataset[Any],
    compute_metrics: Callable[[Any], Mapping[str, float]] | None = None,
    patience: int | None = None,
    callbacks: Sequence[transformers.TrainerCallback] = (),
    trainer_class: type[Trainer] = Trainer,
) -> Any:
    """Return a trainer that keeps the weights with the best `arguments.metric_for_best_model`.

    Args:
        network: Module whose `forward` gives a loss.
        arguments: See `training_arguments`.
        collator: Makes a batch of tensors from rows.
        train: Inputs of the network, with the columns `labels` and `length`.
        validation: Inputs of the network, with the same columns.
        compute_metrics: Gives the metrics of a `transformers.EvalPrediction` by name.
        patience: Evaluations in a row without a better one after which the training stops.
        callbacks: Called by the trainer, in addition to its own.
        trainer_class: Class of the trainer.
    """
    trainer = trainer_class(
        model=network,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        compute_metrics=compute_metrics,
        callbacks=[_EvaluateAtEnd(), *callbacks, *([] if patience is None else [EarlyStoppingCallback(patience)])],
    )
    # Our losses are means over their batch. A `forward` with **kwargs makes transformers expect a loss that divides
    # by the number of items in all accumulated batches.
    trainer.model_accepts_loss_kwargs = False
    # These two write to stdout, which belongs to the report.
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(progress_callback())
    return trainer


@dataclass(frozen=True, eq=False, kw_only=True)
class Head:
    """A head that is ready to be trained.

    Attributes:
        prepared: Its task, examples and encoder.
        network: Module of the encoder with this head.
        inputs: Inputs of the network by split.
    """

    prepared: Prepared
    network: Any
    inputs: Mapping[str, datasets.Dataset]

    @property
    def collator(self) -> Collator:
        """Makes batches of the inputs."""
        return Collator(self.prepared.pretrained.saved_tokenizer.pad_token_id)

    def make_trainer(self, arguments: transformers.TrainingArguments, *, patience: int | None = None) -> Any:
        """Return a trainer of this head; see `fit.make_trainer`."""
        return make_trainer(
            self.network,
            arguments=arguments,
            collator=self.collator,
            train=self.inputs["train"],
            validation=self.inputs["validation"],
            compute_metrics=self.prepared.validation_metrics,
            patience=patience,
            callbacks=self.prepared.task.callbacks(self.network),
        )

    def write_checkpoint(self, folder: Path) -> None:
        """Write weights, settings and tokenizer, in Hugging Face layout."""
        self.prepared.task.save(self.network, folder)
        save_tokenizer(self.prepared.pretrained.saved_tokenizer, folder)


@dataclass(frozen=True, eq=False, kw_only=True)
class Trainers:
    """The trainer of a run, and the trainers that evaluate its heads.

    Attributes:
        main: Trains all heads.
        evaluators: Trainer by name of the head, for evaluation only; with one head, the trainer itself.
    """

    main: Any
    evaluators: Mapping[str, Any]


def training_arguments(settings: TrainingSettings, *, metric: str, folder: Path) -> transformers.TrainingArguments:
    """Return the settings as transformers names them.

    Args:
        settings: Settings with a learning rate.
        metric: Metric that chooses the best weights; more is better, except for `loss`.
        folder: Folder for the state of the training.
    """
    assert settings.learning_rate is not None
    # transformers passes the precision on in this variable. A value that an earlier training left there would be read.
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)
    has_gpu = torch.cuda.is_available()
    strategy = "epoch" if settings.save_steps is None else "steps"
    return transformers.TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=2 * settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule,
        **warmup(transformers, settings.warmup_ratio),
        bf16=(has_gpu and torch.cuda.is_bf16_supported()) if settings.bf16 is None else settings.bf16,
        seed=settings.seed,
        remove_unused_columns=False,
        use_cpu=not has_gpu,
        dataloader_pin_memory=has_gpu,
        eval_strategy=strategy,
        save_strategy=strategy,
        eval_steps=settings.save_steps,
        save_steps=settings.save_steps or 500,
        save_total_limit=1,
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=metric != LOSS,
        logging_steps=0.02,
        report_to="none",
    )


class _EvaluateAtEnd(transformers.TrainerCallback):  # type: ignore[misc] # untyped
    """Evaluates and saves the last weights too, if the number of steps is no multiple of `save_steps`."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if args.save_strategy == "steps" and state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
