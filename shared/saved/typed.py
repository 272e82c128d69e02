"""Read the description of a saved folder: plain JSON values become a dataclass.

Unlike `shared.config.build`, which also reads what people type, this converts nothing: "3" is not a number, null is not
a text, and NaN is not a value.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from shared.errors import UserError
from shared.registry import nearest
from shared.text import one_line

T = TypeVar("T")

WORDS = {int: "a whole number", float: "a finite number", str: "a text", bool: "true or false", dict: "an object"}


def read_typed(kind: type[T], values: Any, where: str) -> T:
    """An instance of the dataclass `kind`. UserError, beginning with `where`, for a missing or unknown key, a value of
    another type, a number that is not finite, and anything that the dataclass itself refuses."""
    return _dataclass(kind, values, where)


def _dataclass(kind: type[T], values: Any, where: str) -> T:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}: {_shown(values)}; expected an object")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    types_of, renamed = typing.get_type_hints(kind), getattr(kind, "RENAMED", {})
    for name in values:
        if name in renamed:
            raise UserError(f"{where}: {name} was renamed: use {renamed[name]}")
        if name not in fields:
            hint = nearest(str(name), fields) if fields else "it has none"
            raise UserError(f"{where} has no option {str(name)[:60]!r}: {hint}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise UserError(f"{where}: {name} is missing")
    converted = {name: _value(types_of[name], value, f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except (TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"{where}: {one_line(error, 300)}") from None


def _value(kind: Any, value: Any, where: str) -> Any:
    """`value` as an instance of the annotation `kind`."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _plain(value, where)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, value, where)  # type: ignore[arg-type, type-var]
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in arguments):
            raise UserError(f"{where} is {_shown(value)}: {nearest(str(value), map(str, arguments))}")
        return value
    if origin in (Union, types.UnionType):
        return _union(arguments, value, where)
    if (origin or kind) in (list, tuple):
        return _sequence(origin or kind, arguments, value, where)
    if (origin or kind) is dict:
        if not isinstance(value, Mapping):
            raise _wrong(dict, value, where)
        inner = arguments[1] if arguments else Any
        return {name: _value(inner, item, f"{where}.{str(name)[:60]}") for name, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        return float(value)
    if kind is Path:
        return Path(_value(str, value, where))
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise _wrong(kind, value, where)
    return value


def _union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    rest = [kind for kind in kinds if kind is not type(None)]
    errors = []
    for kind in rest:
        try:
            return _value(kind, value, where)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _sequence(kind: type, arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if not isinstance(value, list | tuple):
        raise UserError(f"{where} is {_shown(value)}; expected a list")
    if kind is list or not arguments or Ellipsis in arguments:
        inner = [arguments[0] if arguments else Any] * len(value)
    elif len(arguments) != len(value):
        raise UserError(f"{where} is {_shown(value)}; expected {len(arguments)} values")
    else:
        inner = list(arguments)
    return kind(_value(inner[i], item, f"{where}[{i}]") for i, item in enumerate(value))


def _plain(value: Any, where: str) -> Any:
    """`value` unchanged; UserError if it contains a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise _wrong(float, value, where)
    for name, item in value.items() if isinstance(value, Mapping) else enumerate(value if type(value) is list else ()):
        _plain(item, f"{where}.{str(name)[:60]}")
    return value


def _wrong(kind: Any, value: Any, where: str) -> UserError:
    return UserError(f"{where} is {_shown(value)}; expected {WORDS.get(kind, getattr(kind, '__name__', str(kind)))}")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
