"""What a user can set about a training run."""

from dataclasses import dataclass

from encort.runtime.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of one run.

    Attributes:
        epochs: Passes over the training data; the best of them by validation accuracy is kept.
        batch_size: Texts a step.
        learning_rate: Peak of AdamW's; None chooses by the encoder's width, see `default_learning_rate`.
        weight_decay: Decoupled, on everything but biases and layer norms.
        warmup_ratio: Part of the steps in which the learning rate rises; then it falls linearly to 0.
        dropout: Probability in hidden layers and attention; None keeps the model's.
        max_length: Most tokens of a text; None takes the model's limit.
        seed: Of head initialization, order and dropout. The same seed gives the same weights on CPU.
    """

    epochs: int = 4
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    dropout: float | None = None
    max_length: int | None = None
    seed: int = 13

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be {expected}, got {getattr(self, name)}"
            for name, expected, fits in (
                ("epochs", "at least 1", self.epochs >= 1),
                ("batch_size", "at least 1", self.batch_size >= 1),
                ("learning_rate", "above 0", self.learning_rate is None or self.learning_rate > 0),
                ("weight_decay", "at least 0", self.weight_decay >= 0),
                ("warmup_ratio", "between 0 and 1", 0 <= self.warmup_ratio <= 1),
                ("dropout", "from 0 to below 1", self.dropout is None or 0 <= self.dropout < 1),
                ("max_length", "at least 3", self.max_length is None or self.max_length >= 3),
                ("seed", "between 0 and 2**32 - 1", 0 <= self.seed < 2**32),
            )
            if not fits
        ]
        if problems:
            raise InputError("; ".join(problems))


def default_learning_rate(hidden: int) -> float:
    """5e-5 at BERT-base's width of 768, as its paper has it, and more for narrower encoders.

    >>> default_learning_rate(768), default_learning_rate(384)
    (5e-05, 0.0002)
    """
    return 5e-5 * (768 / hidden) ** 2
