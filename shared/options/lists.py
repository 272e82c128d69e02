"""Lists on a command line: `--modalities vision,audio` and `--out board.md --out board.csv` as well as `[a, b]`."""

import dataclasses
import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Union

from shared.options.placeholders import WithCommas


def join_lists(words: list[str], config_class: type) -> list[str]:
    """The words, with the values of each list option joined into one JSON list at the end. A comma separates values,
    except in paths and in options marked WithCommas; each repetition of an option adds to its list. A value that is
    already a list, and null, stay unchanged."""
    options = dict(_list_options(config_class, ""))
    rest: list[str] = []
    values: dict[str, list[str]] = {}
    remaining = iter(words)
    for word in remaining:
        option, sign, value = word.partition("=")
        name = option.removeprefix("--")
        if not option.startswith("--") or name not in options:
            rest.append(word)
            continue
        if not sign:
            following = next(remaining, None)
            if following is None:
                rest.append(word)
                continue
            value = following
        if value in ("", "null") or value.startswith(("[", "--")):
            rest += [word] if sign else [word, value]
            continue
        values.setdefault(name, []).extend(value.split(",") if _splits(options[name]) else [value])
    return rest + [f"--{name}={_as_json(items, options[name])}" for name, items in values.items()]


def list_item(hint: Any) -> Any:
    """The type of the items of a list option whose values are texts, paths or numbers; None for other options."""
    marks = typing.get_args(hint)[1:] if typing.get_origin(hint) is Annotated else ()
    plain = typing.get_args(hint)[0] if marks else hint
    if typing.get_origin(plain) in (Union, types.UnionType):
        parts = [part for part in typing.get_args(plain) if part is not type(None)]
        return list_item(parts[0]) if len(parts) == 1 else None
    if typing.get_origin(plain) is not list:
        return None
    item = typing.get_args(plain)[0]
    scalar = _plain(item) in (str, Path, int, float) or typing.get_origin(_plain(item)) is typing.Literal
    return (Annotated[item, *marks] if marks else item) if scalar else None


def _splits(item: Any) -> bool:
    marks = typing.get_args(item)[1:] if typing.get_origin(item) is Annotated else ()
    return _plain(item) is not Path and not any(isinstance(mark, WithCommas) for mark in marks)


def _as_json(items: list[str], item: Any) -> str:
    """Numbers stay unquoted, so that the parser refuses anything else."""
    return f"[{', '.join(items)}]" if _plain(item) in (int, float) else json.dumps(items)


def _plain(hint: Any) -> Any:
    return _plain(typing.get_args(hint)[0]) if typing.get_origin(hint) is Annotated else hint


def _list_options(config_class: type, prefix: str) -> Iterator[tuple[str, Any]]:
    """Names (dotted for nested options) and the types of their items."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        hint, name = hints[field.name], prefix + field.name
        item = list_item(hint)
        if item is not None:
            yield name, item
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from _list_options(part, f"{name}.")
