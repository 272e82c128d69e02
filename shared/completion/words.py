"""What may be typed after `emit`: read from the same dataclasses as the parser, for the scripts of all shells."""

import contextlib
import importlib
import io
from collections.abc import Mapping
from dataclasses import dataclass

from shared.config import ROOT, shipped_configs
from shared.options.described import Option
from shared.options.help_page import EVERY_COMMAND, Command, HelpShown, first_sentence

SHELLS = ("bash", "zsh", "fish")
GENERAL = {option.partition(" ")[0]: text for option, text in EVERY_COMMAND}
"""{option of every command: what it does}."""


@dataclass(frozen=True)
class Value:
    """The possible values of an option or of a positional argument."""

    words: tuple[str, ...] = ()
    paths: bool = False


@dataclass(frozen=True)
class Known:
    """A command for shell completion."""

    name: str
    summary: str
    options: Mapping[str, str]
    """{--option: what it does}."""
    values: Mapping[str, Value]
    """{--option: its value}, for options that take one."""
    arguments: Value
    """Its positional arguments."""


def known_commands(commands: Mapping[str, tuple[str, str]]) -> list[Known]:
    """Every command with its options. commands: from shared/cli.py, {name: (import path, summary)}."""
    known = [_known(name, _described(target), summary) for name, (target, summary) in commands.items()]
    return [*known, Known("help", "show the options of a command", {}, {}, Value(tuple(commands)))]


def _described(target: str) -> Command:
    """The command at an import path, taken from its help."""
    module, function = target.split(":")
    main = getattr(importlib.import_module(module), function)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            main(["--help"])
    except HelpShown as shown:
        return shown.command
    raise RuntimeError(f"{target} has no help")


def _known(name: str, command: Command, summary: str) -> Known:
    options = {f"--{option.name}": option for option in command.options if not option.positional}
    texts = {word: first_sentence(option.text) for word, option in options.items()}
    texts["--config"] = "YAML file with any of the options, or the name of a shipped one"
    values = {word: _value(option) for word, option in options.items() if not option.is_switch}
    values["--config"] = Value(command.shipped, paths=True)
    places = [_value(option) for option in command.options if option.positional]
    words = tuple(word for place in places for word in place.words)
    named = {"configs": _shipped_names(), "run": _recipes()}.get(name)
    arguments = Value(named, paths=name == "run") if named is not None else Value(words, bool(places) and not words)
    return Known(name, summary, texts | GENERAL, values, arguments)


def _value(option: Option) -> Value:
    return Value(option.names or option.choices, option.is_path)


def _shipped_names() -> tuple[str, ...]:
    packages = ("stage1_align", "stage2_fusion", "accelerate_configs")
    return tuple(name for package in packages for name in shipped_configs(package))


def _recipes() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (ROOT / "shared" / "recipes").glob("*.yaml")))
