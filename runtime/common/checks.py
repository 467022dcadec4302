"""Checks of options and of a vocabulary."""

import numbers
from collections.abc import Collection
from enum import StrEnum
from typing import TypeVar

from encort.runtime.common.errors import CheckpointError, InputError, InputTypeError

Choice = TypeVar("Choice", bound=StrEnum)


def choice(kind: type[Choice], name: str, value: str, *, beside: str | None = None) -> Choice:
    """Return the member of an enumeration with a value.

    Args:
        kind: The enumeration.
        name: Name of the option, for the message.
        value: Value that was given.
        beside: Value that the option has in addition to the enumeration, for the message.

    Raises:
        InputError: The enumeration has no such value; the message lists its values.
    """
    try:
        return kind(value)
    except ValueError:
        have = ", ".join([*([] if beside is None else [beside]), *kind])
        raise InputError(f"{name} must be one of {have}; got {value!r}") from None


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """Refuse a value that is not in a closed set, such as `typing.get_args` of a `Literal`.

    Args:
        name: Name of the option, for the message.
        value: Value that was given.
        choices: Values that are allowed.

    Raises:
        InputError: The value is not one of them; the message lists them.
    """
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_whole(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """Return a value as an int, or refuse it if it is not a whole number. Integers of numpy are whole numbers.

    Args:
        name: Name of the option, for the message.
        value: Value that was given.
        least: Least value that is allowed.
        most: Largest value that is allowed; None: there is no limit.

    Raises:
        InputTypeError: The value is not a whole number.
        InputError: The value is below `least` or above `most`.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputTypeError(f"{name} must be a whole number, got {value!r}")
    whole = int(value)
    if whole < least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    if most is not None and whole > most:
        raise InputError(f"{name} must be at most {most}, got {value}")
    return whole


def check_number(name: str, value: object) -> None:
    """Refuse a value that is not a real number. Numbers of numpy are real numbers.

    Args:
        name: Name of the option, for the message.
        value: Value that was given.

    Raises:
        InputTypeError: The value is not a real number.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputTypeError(f"{name} must be a number, got {value!r}")


def check_vocabulary(name: str, *, tokens: int, embeddings: int) -> None:
    """Refuse a model whose tokenizer has tokens that the model does not embed.

    Args:
        name: Name of the model, for the message.
        tokens: Number of tokens of the tokenizer.
        embeddings: Number of tokens that the model embeds.

    Raises:
        CheckpointError: The tokenizer has more tokens.
    """
    if tokens > embeddings:
        raise CheckpointError(
            f"{name}: the tokenizer has {tokens} tokens, the model embeds {embeddings}; they do not belong together"
        )
