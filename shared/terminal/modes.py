"""--quiet, --json and --debug: options of every command, at any place of the command line."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields

DEBUG = "EMIT_DEBUG"
"""Environment variable: 1 is the same as --debug, for scripts and launchers."""

HELP = {
    "--quiet": "print only errors and the result",
    "--json": "print the result as one JSON document on stdout, everything else on stderr",
    "--debug": f"show the traceback of an error ({DEBUG}=1 does too)",
}
"""{option: what it does}."""


@dataclass(frozen=True)
class Modes:
    """The options that every command takes."""

    quiet: bool = False
    json: bool = False
    debug: bool = False

    def words(self) -> list[str]:
        """The options as arguments, for a command in another process."""
        return [f"--{field.name}" for field in fields(self) if getattr(self, field.name)]


_modes = Modes()


def split_modes(words: Sequence[str]) -> tuple[Modes, list[str]]:
    """The modes among the arguments of a command, and the other arguments. What follows `--` is not touched."""
    end = words.index("--") if "--" in words else len(words)
    given = set(words[:end]) & set(HELP)
    rest = [word for word in words[:end] if word not in HELP]
    return Modes(**{option.removeprefix("--"): True for option in given}), [*rest, *words[end:]]


def use_modes(modes: Modes) -> None:
    """Set the modes of this process."""
    global _modes
    _modes = modes


def modes() -> Modes:
    """The modes of this process."""
    return _modes


def debugging() -> bool:
    """Whether tracebacks are shown."""
    return _modes.debug or os.environ.get(DEBUG, "") not in ("", "0")
