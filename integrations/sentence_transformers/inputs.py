"""Inputs as sentence-transformers takes them: one or many, in lists, tuples, arrays and columns."""

from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from encort.runtime.text.token_batch import Text

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def without_arrays(inputs: Any) -> Any:
    """Return an array of str as a str, or as lists of str; other inputs as they are."""
    return inputs.tolist() if isinstance(inputs, np.ndarray) else inputs


def is_single_text(inputs: object) -> bool:
    """Return whether an input of `encode` is one text, and not many."""
    return isinstance(inputs, str) or not isinstance(inputs, Iterable)


def is_single_pair(inputs: object) -> bool:
    """Return whether an input of `predict` is one pair of texts, and not many pairs."""
    if isinstance(inputs, list | tuple):
        return len(inputs) > 0 and isinstance(inputs[0], str)
    return not isinstance(inputs, Iterable)


def as_texts(inputs: Iterable[Any], prompt: str = "") -> list[Text]:
    """Return inputs as encort takes them, with pairs as tuples.

    Args:
        inputs: Texts or pairs. Items that are neither are returned as they are, for encort to refuse.
        prompt: Text that is put before each text, or before the first text of each pair.
    """
    texts = [tuple(item) if isinstance(item, list) else item for item in inputs]
    return [_put_before(prompt, text) for text in texts] if prompt else texts


def _put_before(prompt: str, text: Any) -> Any:
    if isinstance(text, str):
        return prompt + text
    if isinstance(text, tuple) and text and isinstance(text[0], str):
        return (prompt + text[0], *text[1:])
    return text


def renamed(*dropped: str, **new_names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Let a function take arguments by their older names too, as `@renamed("num_workers", sentences="inputs")`.

    Args:
        dropped: Names of older arguments that have no effect.
        new_names: New names by the older ones.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @wraps(function)
        def call(*arguments: Parameters.args, **options: Parameters.kwargs) -> Result:
            for old, new in new_names.items():
                if old in options:
                    options.setdefault(new, options.pop(old))
            for old in dropped:
                options.pop(old, None)
            return function(*arguments, **options)

        return call

    return decorate
