"""Settings of a training run that users can change."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from encort.runtime.common.errors import InputError

Schedule = Literal["linear", "cosine", "constant_with_warmup"]
"""Course of the learning rate after its warm-up, as transformers names it."""

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one training run.

    Attributes:
        epochs: Passes over the training data. The weights that score best on the validation data are kept, by the
            metric of the task.
        batch_size: Examples per batch and device, before accumulation.
        gradient_accumulation: Batches that make one optimizer step.
        learning_rate: Highest learning rate of AdamW; None chooses it by the task and the width of the encoder, see
            `default_learning_rate`.
        weight_decay: Decoupled weight decay of all weights but biases and layer norms.
        schedule: Course of the learning rate after its warm-up; `linear` and `cosine` fall to 0.
        warmup_ratio: Share of the steps in which the learning rate rises.
        dropout: Dropout probability in hidden layers and attention; None keeps the model's.
        max_length: Most tokens of an input; None takes the limit of the model.
        save_steps: Steps between two evaluations, each with a save; None evaluates and saves after each epoch.
        patience: Evaluations in a row without a better one after which the training stops; None trains to the end.
        bf16: Whether to compute in bfloat16; None does so on GPUs that support it.
        seed: Seed of new weights, of the order of the examples, and of dropout. The same seed gives the same weights
            on a CPU. A GPU adds in no fixed order, so that weights may differ in their last digits.

    Raises:
        InputError: Values are out of range; all of them are listed.
    """

    epochs: int = 4
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    weight_decay: float = 0.01
    schedule: Schedule = "linear"
    warmup_ratio: float = 0.1
    dropout: float | None = None
    max_length: int | None = None
    save_steps: int | None = None
    patience: int | None = None
    bf16: bool | None = None
    seed: int = 13

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be {expected}, got {getattr(self, name)}"
            for name, expected, is_valid in (
                ("epochs", "at least 1", self.epochs >= 1),
                ("batch_size", "at least 1", self.batch_size >= 1),
                ("gradient_accumulation", "at least 1", self.gradient_accumulation >= 1),
                ("learning_rate", "above 0", self.learning_rate is None or self.learning_rate > 0),
                ("weight_decay", "at least 0", self.weight_decay >= 0),
                ("schedule", f"one of {', '.join(SCHEDULES)}", self.schedule in SCHEDULES),
                ("warmup_ratio", "between 0 and 1", 0 <= self.warmup_ratio <= 1),
                ("dropout", "from 0 to below 1", self.dropout is None or 0 <= self.dropout < 1),
                ("max_length", "at least 3", self.max_length is None or self.max_length >= 3),
                ("save_steps", "at least 1", self.save_steps is None or self.save_steps >= 1),
                ("patience", "at least 1", self.patience is None or self.patience >= 1),
                ("seed", "between 0 and 2**32 - 1", 0 <= self.seed < 2**32),  # numpy's generators take 32 bits
            )
            if not is_valid
        ]
        if problems:
            raise InputError("; ".join(problems))

    def with_learning_rate(self, rate: float) -> "TrainingSettings":
        """Return these settings with this learning rate, or unchanged if they have one."""
        return self if self.learning_rate is not None else replace(self, learning_rate=rate)


def default_learning_rate(hidden_size: int, *, at_768: float = 5e-5) -> float:
    """Return the learning rate for an encoder of this width.

    Narrower encoders need a higher one. It grows with the inverse square of the width, up to 1e-3; the measurements
    are in docs/decisions/0009-training.md.

    Args:
        hidden_size: Width of the encoder.
        at_768: Learning rate at the width of BERT-base.

    >>> default_learning_rate(768), default_learning_rate(384), default_learning_rate(24)
    (5e-05, 0.0002, 0.001)
    """
    return min(1e-3, at_768 * (768 / hidden_size) ** 2)
