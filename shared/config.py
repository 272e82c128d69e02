"""Configuration: a dataclass, filled from a YAML file, then from the command line.

The dataclass is the only place where an option is declared: its field, its default, and its reason as the docstring
under the field; its type holds the allowed range (shared/options/ranges.py). Unknown options, wrong types and values
outside their range are one-line errors that name the option. A dataclass may declare
`RENAMED: ClassVar[dict[str, str]] = {"old": "new"}`: the error for the old name then gives the new one.
"""

import copy
import dataclasses
import json
import re
import sys
import typing
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import jsonargparse

from shared.errors import UserError
from shared.files import write_text
from shared.options.help_page import Command, HelpShown, help_page, wants_help
from shared.options.lists import join_lists
from shared.options.messages import plain_message
from shared.options.outputs import check_outputs
from shared.options.ranges import wrong_values
from shared.options.yaml_files import dump_yaml, parse_yaml, read_yaml, truth
from shared.registry import nearest
from shared.text import one_line

T = TypeVar("T")

PARSER: dict[str, Any] = {"parser_mode": "emit_yaml", "default_env": False}
"""Environment variables set no options."""
ROOT = Path(__file__).parents[1]
"""The folder that holds the packages: the repository, or site-packages."""

BASE = "base"
"""The key of a configuration file that names another file, or a shipped one, to start from."""

UNKNOWN = (
    r"does not accept (?:option|key) '([^']+)'",
    r"Option '([^']+)' is not accepted",
    r"[Uu]nrecognized arguments: --([\w.]+)",
)
"""Messages of jsonargparse about an unknown option."""

jsonargparse.set_loader("emit_yaml", lambda text: parse_yaml(text, "an option"), exceptions=(UserError,))


class _Parser(jsonargparse.ArgumentParser):
    """Errors become one line that names the nearest option."""

    command: str
    """The command to recommend --help of: jsonargparse creates more parsers of this class, without a name."""
    renamed: dict[str, str]
    """{old name: new name} of options, both in full."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print one line and exit with status 2."""
        known = [a.dest for a in self._actions if not re.search(r"(^|\.)(help|config)$|print_", a.dest)]
        unknown = re.search("|".join(UNKNOWN), message)
        if unknown:
            key = next(filter(None, unknown.groups()))
            if "." not in key:  # a nested YAML key comes without its path
                known += [name.rsplit(".", 1)[-1] for name in known]
            message = f"no option called {key!r}: {nearest(key, known)}"
            old = next((old for old in self.renamed if old == key or old.endswith(f".{key}")), None)
            if old:
                message = f"--{old} was renamed: use --{self.renamed[old]}"
        sys.stderr.write(f"error: {plain_message(message, '--')} (see {self.command} --help)\n")
        sys.exit(2)


def parse(
    config_class: type[T],
    argv: list[str] | None = None,
    *,
    prog: str,
    example: str,
    positional: tuple[str, ...] = (),
) -> T:
    """Build `config_class` from defaults, then `--config`, then dotted options such as `--train.lr 1e-4`.

    `--config` takes a YAML file, or the name of one shipped in the package of `config_class` (`--config dual_stage`).
    A file with `base: NAME` overrides the options of NAME.
    `positional` names fields given without a flag; a field typed as a list takes all remaining arguments.
    Exits with status 2 and one line on an unknown option, a wrong type or a missing value. UserError for an output that
    cannot be written (shared/options/outputs.py).
    """

    class Parser(_Parser):
        command, renamed = prog, renamed_options(config_class)

    package = config_class.__module__.partition(".")[0]
    words = sys.argv[1:] if argv is None else argv
    asked, every = wants_help(words)
    if asked:
        shipped = tuple(shipped_configs(package)) if getattr(config_class, "SHIPPED", False) else ()
        command = Command(prog, config_class, example, shipped, positional)
        print(help_page(command, every))
        raise HelpShown(command)
    # No abbreviations: the old name of an option may be the beginning of the new one.
    parser = Parser(prog=prog, allow_abbrev=False, **PARSER)
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    parser.add_argument("--config", action="config")
    for name in positional:
        kind = {"nargs": "+"} if "list" in str(fields[name].type) else {"type": fields[name].type}
        if fields[name].default is not dataclasses.MISSING:
            kind |= {"nargs": "?", "default": fields[name].default}
        elif callable(make := fields[name].default_factory):
            kind |= {"nargs": "*", "default": make()}
        parser.add_argument(name, **kind)
    parser.add_class_arguments(config_class, as_group=False, skip=set(positional))
    flags = [name for name, field in fields.items() if field.type in (bool, "bool")]
    for action in parser._actions:
        if action.dest in flags:
            action.nargs, action.const = "?", True  # --flag alone means --flag true
    try:
        words = _with_config_first(_say_flags(join_lists(words, config_class), flags), package)
    except UserError as error:
        parser.error(str(error))
    parsed = parser.parse_args(words)
    for problem in wrong_values(config_class, parsed, "--"):
        parser.error(problem)
    namespace = parser.instantiate(parsed)
    try:
        config = config_class(**{name: value for name, value in vars(namespace).items() if name in fields})
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    check_outputs(config)
    if _only_parse.get():
        raise _Parsed(config)
    return config


class _Parsed(BaseException):
    """Ends a command once its options are parsed, for `options_of_command`."""

    def __init__(self, config: Any):
        self.config = config


_only_parse: ContextVar[bool] = ContextVar("_only_parse", default=False)


def options_of_command(main: Callable[[list[str]], int], argv: list[str]) -> Any:
    """The checked options that the `main` of a command would run with; nothing runs. Raises what `parse` raises, and
    SystemExit after one line on stderr for options that it refuses."""
    token = _only_parse.set(True)
    try:
        main(argv)
    except _Parsed as parsed:
        return parsed.config
    finally:
        _only_parse.reset(token)
    raise ValueError(f"{main.__module__}.{main.__qualname__} parses no options")


def _with_config_first(words: list[str], package: str) -> list[str]:
    """The arguments with the content of `--config` moved to the front, as JSON, so that all other arguments override
    it. A second `--config` overrides the first one, with a note."""
    rest, texts, shown = [], [], []
    remaining = iter(_join_negative(words))
    for word in remaining:
        option, sign, name = word.partition("=")
        if option != "--config":
            rest.append(word)
            continue
        name = name if sign else next(remaining, "")
        if "{" in name:  # YAML itself
            values, label = parse_yaml(name, "--config"), "the text"
        elif not name:
            raise UserError("--config: give a YAML file or a shipped name")
        else:
            file = find_config(name, package)
            values, label = _read_config(file), str(file)
        if not isinstance(values, dict):
            raise UserError(f"--config {name}: holds {_what(values)}, not options; write them as 'option: value'")
        if BASE in values:
            texts.append(_as_option(_base_of(values, label, package)))
            values = {key: value for key, value in values.items() if key != BASE}
        texts.append(_as_option(values))
        shown.append(label)
    if len(shown) > 1:
        sys.stderr.write(f"note: --config is given {len(shown)} times; a later one overrides: {', '.join(shown)}\n")
    return texts + rest


def _base_of(values: dict[Any, Any], label: str, package: str) -> dict[Any, Any]:
    """The options of the base configuration. UserError if it has a base itself."""
    base = find_config(str(values[BASE]), package)
    options = _read_config(base)
    if not isinstance(options, dict) or BASE in options:
        raise UserError(f"{label}: {BASE}: {base} holds no options, or has a {BASE} itself; name one without a {BASE}")
    return options


def _as_option(values: dict[Any, Any]) -> str:
    return f"--config={json.dumps({str(key): value for key, value in values.items()})}"


def _say_flags(words: list[str], flags: list[str]) -> list[str]:
    """`--flag clip.mp4` as `--flag=true clip.mp4`: the word after a flag is its value only if it means true or
    false."""
    following = [*words, ""][1:]
    return [
        f"{word}=true" if word.removeprefix("--") in flags and word.startswith("--") and truth(then) is None else word
        for word, then in zip(words, following, strict=True)
    ]


def _join_negative(words: list[str]) -> list[str]:
    """`--option -1,1` as `--option=-1,1`: argparse mistakes a list with a leading minus sign for an option."""
    joined: list[str] = []
    for word in words:
        if joined and re.match(r"-[.\d]", word) and re.fullmatch(r"--[\w.]+", joined[-1]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _read_config(file: Path) -> Any:
    try:
        return read_yaml(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def _what(value: Any) -> str:
    return "nothing" if value is None else "a list" if isinstance(value, list) else "one value"


def find_config(name: str | Path, package: str) -> Path:
    """The file of a configuration: `name` is a YAML file, or the name of one shipped in `package`, from any directory.
    UserError names the nearest one."""
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_configs(package)
    if str(name) not in shipped:
        hint = f"give a YAML file, or {nearest(str(name), shipped)}" if shipped else "give a YAML file"
        raise UserError(f"{name}: no such configuration; {hint}")
    return shipped[str(name)]


def shipped_configs(package: str) -> dict[str, Path]:
    """{name: file} of the YAML files in a package's folder `configs`; accelerate_configs is flat."""
    folder = ROOT / package
    return {file.stem: file for file in sorted([*folder.glob("configs/*.yaml"), *folder.glob("*.yaml")])}


def load(config_class: type[T], path: str | Path, overrides: list[str] | None = None) -> T:
    """The configuration of a YAML file or a shipped name, with overrides written as on the command line."""
    file = find_config(path, config_class.__module__.partition(".")[0])
    return parse(config_class, ["--config", str(file), *(overrides or [])], prog=str(file), example=f"--config {file}")


def build(config_class: type[T], values: Mapping[str, Any], where: str) -> T:
    """Build `config_class` from plain values, such as a field of type dict. UserError begins with `where`; it names the
    nearest option for an unknown one, and the expected type for a wrong value."""
    known = [field.name for field in dataclasses.fields(config_class)]  # type: ignore[arg-type]
    renamed = renamed_options(config_class)
    types = typing.get_type_hints(config_class)
    for name, value in values.items():
        if name in renamed:
            raise UserError(f"{where}: {name} was renamed: use {renamed[name]}")
        if name not in known:
            hint = nearest(name, known) if known else "it has none"
            raise UserError(f"{where} has no option {name!r}: {hint}")
        choices = typing.get_args(types[name]) if typing.get_origin(types[name]) is typing.Literal else ()
        if choices and value not in choices:
            raise UserError(f"{where}: {name} is {value!r}: {nearest(str(value), map(str, choices))}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False, **PARSER)
    parser.add_class_arguments(config_class, as_group=False)
    try:
        parsed = parser.parse_object(copy.deepcopy(dict(values)))  # it changes nested values
        for problem in wrong_values(config_class, parsed):
            raise UserError(f"{where}: {problem}")
        return config_class(**vars(parser.instantiate(parsed)))
    except (jsonargparse.ArgumentError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {plain_message(error)[:300]}") from None


def renamed_options(config_class: type, prefix: str = "") -> dict[str, str]:
    """{old name: new name} of the options that `config_class` and the dataclasses of its fields declare as RENAMED."""
    renamed = {prefix + old: prefix + new for old, new in getattr(config_class, "RENAMED", {}).items()}
    types = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        for part in (types[field.name], *typing.get_args(types[field.name])):  # also Part | None and list[Part]
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                renamed |= renamed_options(part, f"{prefix}{field.name}.")
    return renamed


def to_dict(config: Any) -> dict[str, Any]:
    """The options as plain dictionaries, lists, numbers and strings, for YAML and JSON."""
    return _plain(dataclasses.asdict(config))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def defaults(config_class: type) -> dict[str, Any]:
    """The default of every option that has one, as in `to_dict`."""
    fields = dataclasses.fields(config_class)
    values = {f.name: f.default_factory() for f in fields if f.default_factory is not dataclasses.MISSING}
    return _plain(values | {f.name: f.default for f in fields if f.default is not dataclasses.MISSING})


def load_yaml(path: Path, how: str) -> dict[str, Any]:
    """The options in a file that `dump` wrote. UserError if it is missing or damaged; `how` says how to repair it."""
    try:
        values = read_yaml(Path(path))
    except (OSError, ValueError):  # ValueError: not a valid file name
        raise UserError(f"{path}: no configuration here; {how}") from None
    except UserError as error:
        raise UserError(f"{one_line(error).replace(': ', ': damaged configuration: ', 1)}; {how}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: damaged configuration (no options in it); {how}")
    return values


def dump(config: Any, path: Path) -> None:
    """Write the resolved configuration as YAML, atomically; `load` reads it back."""
    write_text(path, dump_yaml(to_dict(config)))
