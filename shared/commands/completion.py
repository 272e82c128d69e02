"""`emit completion SHELL`: a script that completes commands, options and their values.

emit completion bash > ~/.local/share/bash-completion/completions/emit
"""

from dataclasses import dataclass
from typing import Literal

from shared import config as configuration
from shared.options.ranges import CheckedOptions
from shared.terminal.results import result


@dataclass
class CompletionConfig(CheckedOptions):
    """Print a shell completion script for the commands of EMIT, their options and values.

    It holds all words, so that a TAB starts no Python; print it again after an update. Its first lines say where it
    goes.
    """

    shell: Literal["bash", "zsh", "fish"]
    """The shell that reads it."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit completion`."""
    config = configuration.parse(
        CompletionConfig,
        argv,
        prog="emit completion",
        example="emit completion bash > ~/.local/share/bash-completion/completions/emit",
        positional=("shell",),
    )
    from shared.cli import COMMANDS
    from shared.completion.scripts import script
    from shared.completion.words import known_commands

    text = script(config.shell, known_commands(COMMANDS))
    result(text.rstrip("\n"), {"shell": config.shell, "script": text})
    return 0
