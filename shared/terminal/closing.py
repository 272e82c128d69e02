"""The last lines of a command: what it wrote, and what comes next.

wrote  runs/clips
next   emit align --config tiny --data runs/clips --run runs/align
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.terminal.messages import note
from shared.terminal.modes import modes
from shared.terminal.results import is_step, offer_document, plain


def closing(wrote: Sequence[Path] = (), then: Sequence[Sequence[object]] = ()) -> None:
    """Print what a command wrote and which commands come next, at its very end. Silent with --quiet and in a command
    called by another; with --json, this is the document of a command that has no other result.

    then: the words after `emit` of each command, such as ("export", "--run", run, "--out", folder).
    """
    if is_step():
        return
    commands = [shlex.join(["emit", *map(str, words)]) for words in then]
    offer_document({"wrote": [str(path) for path in wrote], "next": commands})
    if modes().json:
        return
    for path in wrote:
        note(f"wrote  {path}")
    for path in wrote:
        if path.suffix == ".html":
            note(f"next   open {path} in a browser")
    for command in commands:
        note(f"next   {command}")


def unused(path: Path) -> Path:
    """A path to suggest as an output: `path`, or if it exists, the first free one of PATH_2, PATH_3, ..."""
    candidate, number = path, 2
    while candidate.exists():
        candidate, number = path.with_name(f"{path.stem}_{number}{path.suffix}"), number + 1
    return candidate


def fuse_options(widths: Mapping[str, int]) -> list[str]:
    """The options of `emit fuse` that start stage 2 on features with these widths (features.json). The width of a
    modality that every clip lacks is 1."""
    return ["--config", "words" if widths["vision"] == widths["audio"] == 1 else "dual_stage"]


def given(config: Any, *names: str) -> list[str]:
    """The arguments of the options that differ from their defaults, to repeat in the next command."""
    words = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in names and value != default:
            words += [f"--{field.name}", value if isinstance(value, str) else json.dumps(plain(value))]
    return words
