"""Configuration: a dataclass, filled from a YAML file, then from the command line.

The dataclass is the only place where an option is declared: its field, its default, and (as the docstring under the
field) its reason. Unknown keys and wrong types are errors of one line that name the nearest key.
"""

import dataclasses
import re
import sys
import typing
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse
import yaml

from shared.errors import UserError
from shared.files import write_text
from shared.registry import nearest
from shared.text import one_line

T = TypeVar("T")

UNKNOWN = (
    r"does not accept (?:option|key) '([^']+)'",
    r"Option '([^']+)' is not accepted",
    r"[Uu]nrecognized arguments: --([\w.]+)",
)
"""How jsonargparse says that there is no such option."""

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)


class _Parser(jsonargparse.ArgumentParser):
    """Errors become one line, with the nearest known key."""

    command: str
    """What --help is asked of. jsonargparse makes parsers of this class for nested options, without a name."""
    renamed: dict[str, str]
    """{old name: new name} of options, both in full."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with status 2."""
        keys = [a.dest for a in self._actions if not re.search(r"(^|\.)(help|config)$|print_", a.dest)]
        unknown = re.search("|".join(UNKNOWN), message)
        if unknown:
            key = next(filter(None, unknown.groups()))
            if "." not in key:  # a nested YAML key arrives without its path
                keys = keys + [k.rsplit(".", 1)[-1] for k in keys]
            renamed = next((old for old in self.renamed if old == key or old.endswith(f".{key}")), None)
            if renamed:
                message = f"--{renamed} was renamed: use --{self.renamed[renamed]}"
            else:
                message = f"no option called {key!r}: {nearest(key, keys)}"
        message = one_line(message)
        sys.stderr.write(f"error: {message} (see {self.command} --help)\n")
        sys.exit(2)


def parse(
    config_class: type[T],
    argv: list[str] | None = None,
    *,
    prog: str,
    example: str,
    positional: tuple[str, ...] = (),
) -> T:
    """Build `config_class` from defaults, then `--config FILE.yaml`, then dotted overrides such as `--train.lr 1e-4`.

    `positional` names fields given without a flag; a field typed as a list takes all that remain.
    Exits with status 2 and one line on an unknown key, a wrong type or a missing value.
    """

    class Parser(_Parser):
        command, renamed = prog, renamed_options(config_class)

    text = (config_class.__doc__ or "").strip()
    parser = Parser(prog=prog, description=f"{text}\n\nexample:\n  {example}")
    parser.formatter_class = _HelpFormatter
    fields = {f.name: f for f in dataclasses.fields(config_class)}
    parser.add_argument("--config", action="config", help="YAML file with any of the options below.")
    for name in positional:
        many = "list" in str(fields[name].type)
        kind = {"nargs": "+"} if many else {"type": fields[name].type}
        parser.add_argument(name, help=field_help(config_class, name), **kind)
    parser.add_class_arguments(config_class, as_group=False, skip=set(positional))
    for action in parser._actions:
        if fields.get(action.dest) and fields[action.dest].type in (bool, "bool"):
            action.nargs, action.const = "?", True  # --flag alone means --flag true
    known = parser.parse_args(sys.argv[1:] if argv is None else argv)
    values = dict(vars(parser.instantiate_classes(known)))
    values = {name: value for name, value in values.items() if name in fields}
    try:
        return config_class(**values)
    except (TypeError, ValueError) as error:
        parser.error(str(error))


def renamed_options(config_class: type, prefix: str = "") -> dict[str, str]:
    """{old name: new name} of the options that `config_class` and the dataclasses of its fields declare as RENAMED."""
    renamed = {prefix + old: prefix + new for old, new in getattr(config_class, "RENAMED", {}).items()}
    types = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        for part in (types[field.name], *typing.get_args(types[field.name])):  # also Part | None and list[Part]
            if dataclasses.is_dataclass(part):
                renamed |= renamed_options(typing.cast(type, part), f"{prefix}{field.name}.")
    return renamed


def load(config_class: type[T], path: Path, overrides: list[str] | None = None) -> T:
    """The configuration in a YAML file, with command-line style overrides."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such configuration file")
    return parse(config_class, ["--config", str(path), *(overrides or [])], prog=str(path), example=f"--config {path}")


def build(config_class: type[T], values: dict[str, Any], where: str) -> T:
    """Build `config_class` from plain values, as a field of type dict holds them. UserError, beginning with `where`,
    names the nearest option for an unknown one, and says what a wrong type should be."""
    known = [f.name for f in dataclasses.fields(config_class)]
    for name in values:
        if name in (renamed := renamed_options(config_class)):
            raise UserError(f"{where}: {name} was renamed: use {renamed[name]}")
        if name not in known:
            hint = nearest(name, known) if known else "it has none"
            raise UserError(f"{where} has no option {name!r}: {hint}")
    for name, kind in typing.get_type_hints(config_class).items():
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        if choices and name in values and values[name] not in choices:
            raise UserError(f"{where}: {name} is {values[name]!r}: {nearest(str(values[name]), map(str, choices))}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(config_class, as_group=False)
    try:
        return config_class(**vars(parser.instantiate_classes(parser.parse_object(values))))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {one_line(error, 300)}") from None


def to_dict(config: Any) -> dict:
    """Plain dictionaries, lists, numbers and strings: what YAML and JSON can hold."""
    return _plain(dataclasses.asdict(config))


def _plain(value):
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, Path) else value


def defaults(config_class: type) -> dict:
    """What options are when nobody sets them, as `to_dict` has them; without those that have to be set."""
    fields = dataclasses.fields(config_class)
    made = {f.name: f.default_factory() for f in fields if f.default_factory is not dataclasses.MISSING}
    return _plain(made | {f.name: f.default for f in fields if f.default is not dataclasses.MISSING})


def load_yaml(path: Path, how: str) -> dict:
    """The options of a file that `dump` wrote. UserError when it is not there or damaged, with `how` to mend that."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError:
        raise UserError(f"{path}: no configuration here; {how}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: damaged configuration ({one_line(error)}); {how}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged configuration (no options in it); {how}")
    return values


def dump(config: Any, path: Path) -> None:
    """Write the resolved configuration as YAML, whole or not at all; `load` reads it back."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def field_help(config_class: type, name: str) -> str:
    """The docstring under a dataclass field, read from the source of the class that declares it."""
    import inspect

    for owner in config_class.__mro__[:-1]:
        match = re.search(rf"^    {name}:[^\n]*\n    \"\"\"(.*?)\"\"\"", inspect.getsource(owner), re.S | re.M)
        if match:
            return " ".join(match.group(1).split())
    return ""


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of the description, so that the example stays on its own line."""

    def _fill_text(self, text, width, indent):
        return "\n".join(indent + line for line in text.splitlines())
