"""`emit COMMAND --help`: the common options of a command; `--help all` shows the others too.

A configuration names its common options beside its fields, `COMMON: ClassVar[tuple[str, ...]] = ("data", "train.lr")`,
most important first. Required options are always shown; without COMMON, all options are.
"""

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any

from shared.options.described import Option, describe
from shared.options.placeholders import Placeholder
from shared.terminal.modes import HELP as MODES

WIDTH = 100
"""Columns without a terminal, as in a pipe."""
WIDEST, NARROWEST = 120, 50
LEFT = 32
"""Most columns for the names of options."""
NARROW = 80
"""With fewer columns, texts go below the names."""
ASKS = ("-h", "--help", "--help_all", "--help-all")
CONFIG = Annotated[Path, Placeholder("FILE|NAME")]
EVERY_COMMAND: tuple[tuple[str, str], ...] = (
    ("--help [all]", "Show the common options, or all of them."),
    ("--print_config", "Print the configuration after all other arguments, and exit."),
    *((option, f"{text[0].upper()}{text[1:]}.") for option, text in MODES.items()),
)
"""Options of every command: [(option, text)]."""


@dataclass(frozen=True)
class Command:
    """A command and its options."""

    name: str
    """As typed: "emit align"."""
    config_class: type
    example: str
    shipped: tuple[str, ...]
    """Names that `--config` accepts. A config class with shipped files sets `SHIPPED: ClassVar[bool] = True`."""
    positional: tuple[str, ...] = ()

    @property
    def options(self) -> list[Option]:
        """All options except `--config` and the options of every command."""
        return describe(self.config_class, self.positional)


class HelpShown(SystemExit):
    """Ends a command after its help; carries the command, from which completion reads the options."""

    def __init__(self, command: Command) -> None:
        super().__init__(0)
        self.command = command


def wants_help(words: Sequence[str]) -> tuple[bool, bool]:
    """Whether help is requested, and whether on all options: `--help`, `--help all`."""
    place = next((i for i, word in enumerate(words) if word in ASKS or word.startswith("--help=")), None)
    if place is None:
        return False, False
    return True, words[place].endswith("all") or words[place + 1 : place + 2] == ["all"]


def help_page(command: Command, every: bool = False) -> str:
    """The text of `--help`, as wide as the terminal. every: all options, with their types."""
    width = min(max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST), WIDEST)
    options = command.options
    shown = options if every else _common(command.config_class, options)
    about = (command.config_class.__doc__ or "").strip()
    if not every:
        about = about.partition("\n\n")[0]
    lines = [*_usage(command, options, width), "", *_filled(about, width), ""]
    lines += ["example:", *_example(command.example, width)]
    config = Option("config", CONFIG, _config_text(command.shipped), None)
    places = [option for option in shown if option.positional]
    first = [option for option in shown if not option.group or not every]
    required = [option for option in first if option.required and option not in places]
    others = [config, *(option for option in first if option not in required and option not in places)]
    for title, part in (("", places), ("required:", required), ("options:", others)):
        lines += _section(title, part, width, every)
    for group in dict.fromkeys(option.group for option in shown if option.group and every):
        lines += _section(group, [option for option in shown if option.group == group], width, every)
    if every:
        lines += ["", "every command:", *(line for row in EVERY_COMMAND for line in _row(*row, width))]
    else:
        hidden = f"{len(options) - len(shown)} more options" if len(options) > len(shown) else "types and details"
        general = " ".join(option for option, _ in EVERY_COMMAND[1:])
        lines += ["", f"{hidden}: {command.name} --help all", f"of every command: {general}"]
    return "\n".join(lines)


def _common(config_class: type, options: list[Option]) -> list[Option]:
    """The options of the short help: positional and required ones, then the common ones in the order of COMMON."""
    named: tuple[str, ...] | None = getattr(config_class, "COMMON", None)
    if named is None:
        return options
    known = {option.name: option for option in options}
    first = [option for option in options if option.positional or option.required]
    return first + [known[name] for name in named if known[name] not in first]


def _usage(command: Command, options: list[Option], width: int) -> list[str]:
    words = []
    for option in options:
        if option.positional:
            word = option.name.upper() + "..." * option.many
            words.append(word if option.required else f"[{word}]")
        elif option.usual:
            words.append(f"--{option.name} {option.placeholder}")
    text = " ".join([f"usage: {command.name}", *words, "[options]"])
    return textwrap.wrap(text, width, subsequent_indent=" " * 7, break_long_words=False, break_on_hyphens=False)


def _example(text: str, width: int) -> list[str]:
    """A command line, wrapped so that a shell can read it."""
    lines = textwrap.wrap(text, width - 6, break_long_words=False, break_on_hyphens=False)
    return ["  " + " \\\n    ".join(lines)]


def _filled(text: str, width: int) -> list[str]:
    """The description: each paragraph filled."""
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return [line for part in paragraphs for line in [*_wrapped(part, width), ""]][:-1]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _section(title: str, options: Iterable[Option], width: int, every: bool) -> list[str]:
    rows = [line for option in options for line in _row(_left(option), _right(option, every), width)]
    return ["", *_wrapped(title, width), *rows] if rows else []


def _left(option: Option) -> str:
    if option.positional:
        return option.name.upper() + "..." * option.many
    return f"--{option.name}" if option.is_switch else f"--{option.name} {option.placeholder}"


def _right(option: Option, every: bool) -> str:
    """What an option does, with its default, and its type if all options are shown."""
    text = option.text if every else first_sentence(option.text)
    facts = [option.type_text] if every and option.type_text else []
    default = _default_text(option.default)
    switched_off = option.default is False and not every
    if default and not switched_off:
        facts.append(f"default: {default}")
    return f"{text} ({'; '.join(facts)})" if facts else text


def first_sentence(text: str) -> str:
    return re.split(r"(?<=[\w`)\"}\]]\.)\s+(?=[A-Z\"`0-9])", text, maxsplit=1)[0]


def _default_text(value: Any) -> str:
    """A default as one would type it; "" for none."""
    if value is MISSING or value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_default_text(item)}" for name, item in value.items()) + "}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _config_text(shipped: Sequence[str]) -> str:
    names = f", or a shipped one: {', '.join(shipped)}" if shipped else ""
    return f"YAML file with any of the options{names}."


def _row(left: str, right: str, width: int) -> list[str]:
    """An option on the left, its text on the right, or below if the option is long."""
    indent = LEFT if width >= NARROW else 6
    body = _wrapped(right, width - indent) or [""]
    if len(left) + 4 > indent:
        return [f"  {left}", *(" " * indent + line for line in body)]
    return [f"  {left:<{indent - 4}}  {body[0]}".rstrip(), *(" " * indent + line for line in body[1:])]
