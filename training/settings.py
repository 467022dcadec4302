"""What a user can set about a training run."""

from dataclasses import dataclass, replace
from enum import StrEnum

from encort.runtime.common.errors import InputError


class Schedule(StrEnum):
    """How the learning rate falls after its warm-up."""

    LINEAR = "linear"
    COSINE = "cosine"
    CONSTANT = "constant_with_warmup"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one run.

    Attributes:
        epochs: Passes over the training data; the best of them by the task's metric on validation data is kept.
        batch_size: Examples a step on each device, before accumulation.
        gradient_accumulation: Batches that make one step.
        learning_rate: Peak of AdamW's; None chooses by task and width of the encoder, see `default_learning_rate`.
        weight_decay: Decoupled, on everything but biases and layer norms.
        schedule: How the learning rate falls, linearly to 0 unless set.
        warmup_ratio: Part of the steps in which the learning rate rises.
        dropout: Probability in hidden layers and attention; None keeps the model's.
        max_length: Most tokens of an input; None takes the model's limit.
        save_steps: Evaluate and save after so many steps; None does it after each epoch.
        patience: Stop when so many evaluations in a row were no better; None trains to the end.
        bf16: Compute in bfloat16; None does where the device is a GPU that has it.
        seed: Of head initialization, order and dropout. The same seed gives the same weights on CPU; on a GPU sums are
            in no fixed order, so that weights may differ in their last digits.
    """

    epochs: int = 4
    batch_size: int = 32
    gradient_accumulation: int = 1
    learning_rate: float | None = None
    weight_decay: float = 0.01
    schedule: Schedule = Schedule.LINEAR
    warmup_ratio: float = 0.1
    dropout: float | None = None
    max_length: int | None = None
    save_steps: int | None = None
    patience: int | None = None
    bf16: bool | None = None
    seed: int = 13

    def __post_init__(self) -> None:
        if self.schedule in list(Schedule):  # which the names are in too
            object.__setattr__(self, "schedule", Schedule(self.schedule))
        problems = [
            f"{name} must be {expected}, got {getattr(self, name)}"
            for name, expected, fits in (
                ("epochs", "at least 1", self.epochs >= 1),
                ("batch_size", "at least 1", self.batch_size >= 1),
                ("gradient_accumulation", "at least 1", self.gradient_accumulation >= 1),
                ("learning_rate", "above 0", self.learning_rate is None or self.learning_rate > 0),
                ("weight_decay", "at least 0", self.weight_decay >= 0),
                ("schedule", f"one of {', '.join(Schedule)}", self.schedule in list(Schedule)),
                ("warmup_ratio", "between 0 and 1", 0 <= self.warmup_ratio <= 1),
                ("dropout", "from 0 to below 1", self.dropout is None or 0 <= self.dropout < 1),
                ("max_length", "at least 3", self.max_length is None or self.max_length >= 3),
                ("save_steps", "at least 1", self.save_steps is None or self.save_steps >= 1),
                ("patience", "at least 1", self.patience is None or self.patience >= 1),
                ("seed", "between 0 and 2**32 - 1", 0 <= self.seed < 2**32),
            )
            if not fits
        ]
        if problems:
            raise InputError("; ".join(problems))

    def with_learning_rate(self, rate: float) -> "TrainingSettings":
        """The same, with this learning rate where none was set."""
        return self if self.learning_rate is not None else replace(self, learning_rate=rate)


def default_learning_rate(hidden: int, *, at_768: float = 5e-5) -> float:
    """That of BERT-base's width, and more for narrower encoders, by the square of the width, up to 1e-3.

    >>> default_learning_rate(768), default_learning_rate(384), default_learning_rate(24)
    (5e-05, 0.0002, 0.001)
    """
    return min(1e-3, at_768 * (768 / hidden) ** 2)
