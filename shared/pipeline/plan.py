"""The steps of a run as their commands see them: checked options, and the files they read and write.

A recipe declares nothing twice: what a step reads and writes follows from the types of its command's options.
"""

import contextlib
import dataclasses
import importlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shared.cli import COMMANDS
from shared.config import options_of_command
from shared.errors import UserError
from shared.files import digest
from shared.options.outputs import WrittenPath, paths_of
from shared.pipeline.expand import CommandLine
from shared.pipeline.fingerprints import fingerprint, source_fingerprint

COUNTED_WHOLE = ("align", "fuse", "search", "synth")
"""Commands whose output folder counts as changed when another step writes a folder inside it. A saved folder, such as
a dataset, does not."""


@dataclass(frozen=True)
class PlannedStep:
    """One step, ready to run."""

    line: CommandLine
    config: Any
    """The options of its command: a dataclass."""
    outputs: tuple[WrittenPath, ...]
    before: tuple[tuple[Path, Path], ...] = ()
    """The outputs of the steps before it, each with its resolved path."""

    @property
    def run_folder(self) -> Path | None:
        """The folder of a training run, which is finished when it has a metrics.json."""
        return next((output.path for output in self.outputs if output.option == "--run"), None)

    def is_output(self, path: Path) -> bool:
        return any(_same(path, output.path) for output in self.outputs)

    def results_in(self, folder: Path) -> list[Path]:
        """The outputs of earlier steps in a folder that is not an output itself: what a report on it reads."""
        place = Path(os.path.realpath(folder))
        return [path for path, made in self.before if place in made.parents]


def plan_steps(lines: Sequence[CommandLine]) -> list[PlannedStep]:
    """Check every step before any runs. UserError names a step with options that its command refuses, with the output
    of another step or a folder inside a run as its output, or with an input that neither exists nor is written
    earlier."""
    steps: list[PlannedStep] = []
    written = _Written()
    before: list[tuple[Path, Path]] = []
    for line in lines:
        config = _options(line)
        outputs, _ = paths_of(config)
        step = PlannedStep(line, config, tuple(outputs), tuple(before))
        for path in needed_paths(step):
            if not path.exists() and not written.by_earlier(path) and not step.results_in(path):
                raise UserError(f"{path}: no such file or folder, needed by the step {line.name!r} ({line})")
        written.add(step)
        before += [(output.path, _real(output.path)) for output in outputs]
        steps.append(step)
    return steps


class _Written:
    """Where steps write, with links resolved; indexed by path, because a recipe may have hundreds of steps."""

    def __init__(self) -> None:
        self._outputs: dict[Path, tuple[str, WrittenPath]] = {}
        """{place: the step and its output}"""
        self._around: dict[Path, tuple[str, WrittenPath]] = {}
        """{folder: a step and its output, a folder inside}"""
        self._whole: dict[Path, tuple[str, WrittenPath]] = {}
        """Outputs of the commands in COUNTED_WHOLE."""
        self._beside: set[Path] = set()

    def add(self, step: PlannedStep) -> None:
        """UserError if an earlier step writes to the same path, or one writes a folder inside another's
        COUNTED_WHOLE."""
        places = [(_real(output.path), output) for output in step.outputs]
        for place, output in places:
            writes = f"the step {step.line.name!r} writes {output.path}"
            if place in self._outputs:
                raise UserError(f"{writes}, as {self._outputs[place][0]!r} does")
            inner = self._around.get(place) if step.line.words[1] in COUNTED_WHOLE else None
            outer = next((self._whole[folder] for folder in place.parents if folder in self._whole), None)
            other = inner or outer
            if output.mark.folder and other is not None:
                raise UserError(f"{writes}, and {other[0]!r} {other[1].path}: neither folder may lie in the other")
        for place, output in places:
            made = (step.line.name, output)
            self._outputs[place] = made
            self._beside.update(map(_real, output.beside))
            if output.mark.folder:
                self._around.update(dict.fromkeys(place.parents, made))
                self._whole |= {place: made} if step.line.words[1] in COUNTED_WHOLE else {}

    def by_earlier(self, path: Path) -> bool:
        """Whether an output is the path, is written next to it, or contains it."""
        place = _real(path)
        folders = (self._outputs[folder][1] for folder in place.parents if folder in self._outputs)
        return place in self._outputs or place in self._beside or any(output.mark.folder for output in folders)


def _options(line: CommandLine) -> Any:
    """The options of one step. UserError instead of the line that its command prints about a wrong option."""
    module, function = COMMANDS[line.words[1]][0].split(":")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed), contextlib.redirect_stdout(io.StringIO()):
            return options_of_command(getattr(importlib.import_module(module), function), list(line.words[2:]))
    except SystemExit:
        shown = [text for text in printed.getvalue().splitlines() if text.startswith("error: ")]
        reason = shown[-1].removeprefix("error: ") if shown else "its options are refused"
    except UserError as error:
        reason = str(error)
    raise UserError(f"the step {line.name!r}: {reason} ({line})")


def given_fields(config: Any) -> dict[str, Any]:
    """The options of a step by name, without unset paths: Path() would be the working directory."""
    fields = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {field.name: value for field, value in fields.items() if not (value == field.default == Path())}


def needed_paths(step: PlannedStep) -> Iterator[Path]:
    """The paths that must exist before a step that reads them: options of type Path, and paths in lists or in
    NAME=PATH."""
    for value in given_fields(step.config).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, Path) and not step.is_output(part):
                yield part
            elif isinstance(part, str) and isinstance(value, list | tuple) and os.sep in part:
                yield Path(part.partition("=")[2] or part)


def made_from(step: PlannedStep, out: Path) -> dict[str, Any]:
    """What the outputs of a step depend on, by name: its options, with a fingerprint in place of each file or folder
    that it reads. The location of `out` does not matter.

    out: the folder of the recipe's results."""
    config = step.config
    described: dict[str, Any] = {"command": step.line.words[1], "version": version("emit-toolkit")}
    for name, value in given_fields(config).items():
        described |= _describe(step, value, name, out)
    source = getattr(config, "source", None)
    if isinstance(source, Path) and hasattr(config, "layout"):
        described["source"] = source_fingerprint(source, config.layout, config.layout_options or {})
    return described


def _describe(step: PlannedStep, value: Any, name: str, out: Path) -> dict[str, Any]:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, dict | list | tuple) and value:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: one for k, part in parts for key, one in _describe(step, part, f"{name}.{k}", out).items()}
    if isinstance(value, Path) and step.is_output(value):
        return {name: os.path.relpath(value, out)}
    path = value if isinstance(value, Path) else _named_path(value) if isinstance(value, str) else None
    if path is not None and path.exists() and name != "source":
        results = step.results_in(path)
        return {name: digest([fingerprint(part) for part in results]) if results else fingerprint(path)}
    return {name: str(value) if isinstance(value, Path) else value}


def _named_path(text: str) -> Path | None:
    """The existing path in an option that is a text: PATH, NAME=PATH or NAME:PATH."""
    for part in (text, text.partition("=")[2], text.partition(":")[2]):
        with contextlib.suppress(OSError, ValueError):
            if os.sep in part and os.path.exists(part):
                return Path(part)
    return None


def _same(a: Path, b: Path) -> bool:
    return os.path.realpath(a) == os.path.realpath(b)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))
