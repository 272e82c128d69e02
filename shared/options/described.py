"""The options of a command as data: `--help` and shell completion read the same dataclasses as the parser."""

import dataclasses
import importlib
import inspect
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Union

from shared.options.outputs import Output
from shared.options.placeholders import Placeholder
from shared.options.ranges import Range

NEVER_REACHED = 10**5
"""A range that ends here or later is shown as "or more": its end only catches typos."""
TOLD = ("path", "text", "value", "true or false", "{name: value}", "file to write", "folder to write", "list of text")
"""Types that a placeholder such as PATH already shows."""


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    name: str
    """Dotted, with its groups: `train.lr`."""
    hint: Any
    text: str
    """Its docstring, in one line."""
    default: Any
    """dataclasses.MISSING if it is required."""
    group: str = ""
    """Its nested dataclass, with the docstring; "" at the first level."""
    positional: bool = False

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def many(self) -> bool:
        """Whether it is a list; if positional, it takes several words."""
        return typing.get_origin(_plain(self.hint)) is list

    @property
    def choices(self) -> tuple[str, ...]:
        """Its possible values, if they are few and known."""
        parts = [part for part in _parts(self.hint) if part is not type(None)]
        found = [str(value) for part in parts for value in _choices_of(part)]
        return tuple(dict.fromkeys(found)) if all(map(_choices_of, parts)) else ()

    @property
    def is_switch(self) -> bool:
        """Whether it can be given without a value: a boolean at the first level."""
        return self.choices == ("true", "false") and "." not in self.name

    @property
    def is_path(self) -> bool:
        """Whether its value is a path, or a list of paths."""
        inner = [item for part in _parts(self.hint) for item in (part, *typing.get_args(_plain(part)))]
        return any(_plain(part) is Path for part in inner)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in the registry of its values."""
        path = next((mark.names for mark in _marks(self.hint) if isinstance(mark, Placeholder)), "")
        module, _, registry = path.partition(":")
        return tuple(getattr(importlib.import_module(module), registry).names()) if path else ()

    @property
    def placeholder(self) -> str:
        """The placeholder for its value: PATH, N, info_nce|sigmoid, {NAME: NUMBER}."""
        mark = next((mark.text for mark in _marks(self.hint) if isinstance(mark, Placeholder)), None)
        few = 0 < len(self.choices) < 5 and not self.many
        return mark or ("|".join(self.choices) if few else _placeholder(self.hint))

    @property
    def usual(self) -> bool:
        """Whether the usage line shows it."""
        return self.required or any(mark.usual for mark in _marks(self.hint) if isinstance(mark, Placeholder))

    @property
    def type_text(self) -> str:
        """Its type in words, such as "number from 0 to 1"; "" if the placeholder says it."""
        words = type_text(self.hint)
        told = (
            words in TOLD
            or (self.many and self.positional)
            or self.placeholder.replace("|", ", ") == words.removeprefix("one of ")
        )
        return "" if told or any(isinstance(mark, Placeholder) for mark in _marks(self.hint)) else words


def describe(config_class: type, positional: tuple[str, ...] = ()) -> list[Option]:
    """All options of a configuration, including nested dataclasses, in order of declaration."""
    return list(_describe(config_class, dataclasses.MISSING, "", "", positional))


def _describe(
    config_class: type, values: Any, prefix: str, group: str, positional: tuple[str, ...]
) -> Iterator[Option]:
    """values: an instance that holds the defaults, or MISSING for the defaults of the class."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    fields = dataclasses.fields(config_class)
    nested = {field.name: part for field in fields for part in _parts(hints[field.name]) if _is_options(part)}
    for field in sorted(fields, key=lambda field: field.name in nested):
        name = prefix + field.name
        default = _default(field) if values is dataclasses.MISSING else getattr(values, field.name)
        if field.name in nested:
            part = nested[field.name]
            title = f"--{name}: {field_help(config_class, field.name) or ' '.join((part.__doc__ or '').split())}"
            yield from _describe(part, dataclasses.MISSING if default is None else default, f"{name}.", title, ())
            continue
        text, place = field_help(config_class, field.name), field.name in positional
        yield Option(name, hints[field.name], text, default, group, place)


def _is_options(part: Any) -> bool:
    return isinstance(part, type) and dataclasses.is_dataclass(part)


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def field_help(config_class: type, name: str) -> str:
    """The docstring under a dataclass field, read from the source of its class."""
    for owner in config_class.__mro__[:-1]:
        match = re.search(rf"^    {name}:[^\n]*\n    \"\"\"(.*?)\"\"\"", inspect.getsource(owner), re.S | re.M)
        if match:
            return " ".join(match.group(1).split())
    return ""


# --- types, in words -------------------------------------------------------------------------------------------------


def _marks(hint: Any) -> tuple[Any, ...]:
    """The Annotated metadata of a type, or of a member of a union."""
    metadata = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    return metadata + tuple(mark for part in _parts(hint) if part is not hint for mark in _marks(part))


def _plain(hint: Any) -> Any:
    """A type without Annotated."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _parts(hint: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    plain = _plain(hint)
    union = typing.get_origin(plain) in (Union, types.UnionType)
    return list(typing.get_args(plain)) if union else [hint]


def _choices_of(hint: Any) -> tuple[Any, ...]:
    plain = _plain(hint)
    if plain is bool:
        return "true", "false"
    if typing.get_origin(plain) is list:
        return _choices_of(typing.get_args(plain)[0])
    return typing.get_args(plain) if typing.get_origin(plain) is typing.Literal else ()


def _placeholder(hint: Any) -> str:
    """The placeholder, in capitals, for a value of this type."""
    part = next((part for part in _parts(hint) if part is not type(None)), hint)
    plain, arguments = _plain(part), typing.get_args(_plain(part))
    output = next((mark for mark in _marks(part) if isinstance(mark, Output)), None)
    if output:
        return "FOLDER" if output.folder else "FILE"
    if typing.get_origin(plain) in (list, tuple):
        item = _placeholder(arguments[0])
        return item if _plain(arguments[0]) is Path else f"{item},{item},..."
    if typing.get_origin(plain) is dict:
        return f"{{NAME: {_placeholder(arguments[1])}}}"
    if typing.get_origin(plain) is typing.Literal:
        return "NAME"
    return {int: "N", float: "NUMBER", str: "TEXT", Path: "PATH", bool: "true|false"}.get(plain, "VALUE")


def type_text(hint: Any) -> str:
    """A type in words: "whole number, 1 or more", "one of no, bf16, auto", "{name: number from 0 to 1}"."""
    parts = [part for part in _parts(hint) if part is not type(None)]
    if len(parts) > 1:
        return ", or ".join(map(type_text, parts))
    plain, arguments, marks = _plain(parts[0]), typing.get_args(_plain(parts[0])), _marks(parts[0])
    output = next((mark for mark in marks if isinstance(mark, Output)), None)
    if output:
        return repr(output).removeprefix("a ")
    if plain in (int, float):
        limits = next((mark for mark in marks if isinstance(mark, Range)), None)
        return _number_text("whole number" if plain is int else "number", limits)
    if typing.get_origin(plain) in (list, tuple):
        inner = type_text(arguments[0])
        if _plain(arguments[0]) is Path:
            return "may be repeated"
        return f"list of {inner}" if "number" not in inner else f"list, each a {inner}"
    if typing.get_origin(plain) is dict:
        return f"{{name: {type_text(arguments[1])}}}"
    if typing.get_origin(plain) is typing.Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if _is_options(plain):
        return f"{{{', '.join(field.name for field in dataclasses.fields(plain))}}}"
    return {bool: "true or false", str: "text", Path: "path"}.get(plain, "value")


def _number_text(noun: str, limits: Range | None) -> str:
    if limits is None or limits.low <= -NEVER_REACHED:
        return noun
    if limits.high >= NEVER_REACHED:
        return f"{noun} above {limits.low:g}" if limits.open_low else f"{noun}, {limits.low:g} or more"
    return f"{noun} {limits!r}"
