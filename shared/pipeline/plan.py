"""The steps of a run as their commands understand them: checked options, and the files they read and write.

Nothing is written twice in a recipe: what a step reads and writes follows from the types of its command's options.
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


@dataclass(frozen=True)
class PlannedStep:
    """One step, ready to run."""

    line: CommandLine
    config: Any
    """The options of its command, a dataclass."""
    outputs: tuple[WrittenPath, ...]
    before: tuple[Path, ...] = ()
    """The outputs of the steps before it."""

    @property
    def run_folder(self) -> Path | None:
        """The folder of a training run, which is finished when it holds metrics.json."""
        return next((output.path for output in self.outputs if output.option == "--run"), None)

    def is_output(self, path: Path) -> bool:
        return any(_same(path, output.path) for output in self.outputs)

    def results_in(self, folder: Path) -> list[Path]:
        """The outputs of earlier steps in a folder that is none itself: what a report of the folder reads."""
        place = Path(os.path.realpath(folder))
        places = {path: Path(os.path.realpath(path)) for path in self.before}
        return [path for path, made in places.items() if made != place and made.is_relative_to(place)]


def plan_steps(lines: Sequence[CommandLine]) -> list[PlannedStep]:
    """Check every step before any runs. UserError names the step whose options its command refuses, that writes what
    another step writes or a folder within or around one, or that reads what neither exists nor is made before it."""
    steps: list[PlannedStep] = []
    for line in lines:
        config = _options(line)
        outputs, _ = paths_of(config)
        step = PlannedStep(line, config, tuple(outputs), tuple(output.path for s in steps for output in s.outputs))
        for earlier in steps:
            _refuse_shared_places(earlier, step)
        for path in needed_paths(step):
            made = any(_belongs(path, output) for s in steps for output in s.outputs)
            if not path.exists() and not made and not step.results_in(path):
                raise UserError(f"{path}: no such file or folder, which the step {line.name!r} needs ({line})")
        steps.append(step)
    return steps


def _refuse_shared_places(earlier: PlannedStep, step: PlannedStep) -> None:
    for output in step.outputs:
        if earlier.is_output(output.path):
            raise UserError(f"the step {step.line.name!r} writes {output.path}, as {earlier.line.name!r} does")
        for other in earlier.outputs:
            within = _belongs(output.path, other) or _belongs(other.path, output)
            if output.mark.folder and other.mark.folder and within:  # the outer one would count as changed
                raise UserError(
                    f"the step {step.line.name!r} writes {output.path}, and {earlier.line.name!r} {other.path}: neither "
                    "folder may lie in the other; give another place"
                )


def _options(line: CommandLine) -> Any:
    """The options of one step. UserError in place of the line that its command prints about a wrong option."""
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
    """The options of a step by name, without a path that is not given: Path(), which would be the working directory."""
    fields = {field: getattr(config, field.name) for field in dataclasses.fields(config)}
    return {field.name: value for field, value in fields.items() if not (value == field.default == Path())}


def needed_paths(step: PlannedStep) -> Iterator[Path]:
    """The paths that a step reads and that must exist before it: options of type Path, and paths in lists, or by
    name."""
    for value in given_fields(step.config).values():
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
        for part in parts:
            if isinstance(part, Path) and not step.is_output(part):
                yield part
            elif isinstance(part, str) and isinstance(value, list | tuple) and os.sep in part:
                yield Path(part.partition("=")[2] or part)


def made_from(step: PlannedStep, out: Path) -> dict[str, Any]:
    """What the outputs of a step depend on, by name: its options, and in place of a file or folder that it reads what
    tells its content from another. Where the folder `out` lies makes no difference.

    out: the folder of the results of the recipe."""
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


def _belongs(path: Path, output: WrittenPath) -> bool:
    """Whether an output is or holds a path."""
    place, made = Path(os.path.realpath(path)), Path(os.path.realpath(output.path))
    beside = [Path(os.path.realpath(each)) for each in output.beside]
    return place in (made, *beside) or (output.mark.folder and place.is_relative_to(made))
