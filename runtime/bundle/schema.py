"""Plain JSON values to frozen dataclasses, strictly: nothing missing but defaults, nothing unknown, no type guessed."""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

T = TypeVar("T")


class SchemaError(ValueError):
    """A value that does not have the declared type; the message names its place."""


def from_plain(kind: type[T], value: Any, place: str = "") -> T:
    """Build `kind` from what `json.loads` gives.

    `kind` is a dataclass, an enum, a scalar, `list[...]`, `Mapping[str, ...]` or `... | None`.

    >>> from_plain(list[int], [1, 2])
    [1, 2]
    >>> from_plain(list[int], [1, "2"])
    Traceback (most recent call last):
    encort.runtime.bundle.schema.SchemaError: [1]: expected int, got '2'

    Raises:
        SchemaError: The value does not fit; the message says where, what was expected and what came.
    """
    return typing.cast("T", _convert(kind, value, place))


def _convert(kind: Any, value: Any, place: str) -> Any:  # noqa: PLR0911 - one return a kind
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, place)
    if is_dataclass(kind):
        return _dataclass(kind, _expect(dict, value, place), place)
    if origin is list:
        items = _expect(list, value, place)
        return [_convert(arguments[0], item, f"{place}[{index}]") for index, item in enumerate(items)]
    if origin is Mapping:
        items = _expect(dict, value, place)
        return {key: _convert(arguments[1], item, f"{place}.{key}") for key, item in items.items()}
    if issubclass(kind, Enum):
        return _enum(kind, value, place)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return _expect(kind, value, place)


def _dataclass(kind: Any, plain: dict[str, Any], place: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    if missing := required - plain.keys():
        raise SchemaError(f"{place or 'it'} lacks {', '.join(sorted(missing))}")
    if unknown := plain.keys() - names:
        raise SchemaError(f"{place or 'it'} has unknown {', '.join(sorted(unknown))}")
    prefix = f"{place}." if place else ""
    return kind(**{name: _convert(hints[name], plain[name], prefix + name) for name in plain})


def _enum(kind: type[Enum], value: Any, place: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise SchemaError(f"{place}: expected one of {known}, got {value!r}") from None


def _expect(kind: type[Any], value: Any, place: str) -> Any:
    # `type() is` and not isinstance: True is an int to isinstance.
    if type(value) is not kind:
        raise SchemaError(f"{place or 'it'}: expected {kind.__name__}, got {value!r}")
    return value
