"""Build dataclasses from JSON values, strictly, and JSON values from dataclasses.

A field without a default must be there, an unknown field is an error, and no value is converted to another type.
"""

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any, TypeVar

from encort.runtime.common.output.escaping import is_unicode

T = TypeVar("T")


class SchemaError(ValueError):
    """A value does not have the declared type; the message has its path in the document."""


def from_plain(kind: type[T], value: Any, path: str = "") -> T:
    """Build an object of a type from a value of `json.loads`.

    >>> from_plain(list[int], [1, 2])
    [1, 2]
    >>> from_plain(list[int], [1, "2"])
    Traceback (most recent call last):
    encort.runtime.bundle.schema.SchemaError: [1]: expected int, got '2'

    Args:
        kind: A dataclass, an enum, a scalar, `list[...]`, `Mapping[str, ...]` or `... | None`.
        value: The value.
        path: Path of the value in the document, such as `heads[0].task`; empty for the document itself.

    Raises:
        SchemaError: The value does not fit; the message has its path, the expected type and the value.
    """
    return typing.cast("T", _convert(kind, value, path))


def to_plain(value: Any) -> Any:
    """Return a value as `json.dumps` takes it.

    A field with its default value is left out. So an encort that does not know a new field reads all objects that do
    not use it.
    """
    if is_dataclass(value):
        named = {field.name: (getattr(value, field.name), _default(field)) for field in fields(value)}
        return {name: to_plain(item) for name, (item, default) in named.items() if item != default}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, list) else value


def _default(field: Field[Any]) -> Any:
    """Return the default of a field; `MISSING` if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _convert(kind: Any, value: Any, path: str) -> Any:  # noqa: PLR0911 - one return per kind of type
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return None if value is None else _convert(arguments[0], value, path)
    if is_dataclass(kind):
        return _dataclass(kind, _expect(dict, value, path), path)
    if origin is list:
        items = _expect(list, value, path)
        return [_convert(arguments[0], item, f"{path}[{index}]") for index, item in enumerate(items)]
    if origin is Mapping:
        items = _expect(dict, value, path)
        return {key: _convert(arguments[1], item, f"{path}.{key}") for key, item in items.items()}
    if issubclass(kind, Enum):
        return _enum(kind, value, path)
    if kind is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    return _expect(kind, value, path)


def _dataclass(kind: Any, plain: dict[str, Any], path: str) -> Any:
    hints = typing.get_type_hints(kind)
    names = {field.name for field in fields(kind)}
    required = {field.name for field in fields(kind) if field.default is field.default_factory is MISSING}
    if missing := required - plain.keys():
        raise SchemaError(f"{path or 'it'} lacks {', '.join(sorted(missing))}")
    if unknown := plain.keys() - names:
        raise SchemaError(f"{path or 'it'} has unknown {', '.join(sorted(unknown))}")
    prefix = f"{path}." if path else ""
    return kind(**{name: _convert(hints[name], plain[name], prefix + name) for name in plain})


def _enum(kind: type[Enum], value: Any, path: str) -> Enum:
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(member.value) for member in kind)
        raise SchemaError(f"{path}: expected one of {known}, got {value!r}") from None


def _expect(kind: type[Any], value: Any, path: str) -> Any:
    # `isinstance(True, int)` is true, so the types are compared.
    if type(value) is not kind:
        raise SchemaError(f"{path or 'it'}: expected {kind.__name__}, got {value!r}")
    if kind is str and not is_unicode(value):
        raise SchemaError(f"{path}: {value!r} has an unpaired surrogate, so it is not Unicode")
    return value
