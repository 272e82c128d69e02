"""A recipe as its YAML file describes it: variables, and steps that are lines of `emit` commands.

    summary: What it does, in one line.
    variables:
      data: The table of the clips.                     only a text: required, with its help
      out: { default: runs/mine, help: Folder of all results. }
      seeds: { default: [0, 1], help: Seeds of stage 2. }
    steps:
      - name: prepare
        run: emit prepare {data} --out {out}/clips
      - for: { seed: seeds }                            the steps below, once for each value of the variable (or list)
        steps:
          - name: stage 2
            run: emit fuse --data {out}/features --run {out}/fuse{seed} --seed {seed}
      - name: leaderboard
        if: seeds                                       left out when the variable is empty; also `if: not seeds`
        run: emit leaderboard dual={out}/fuse{seeds*}/model/evaluation/metrics_test.json
    score: "{out}/metrics.json"                         the evaluation that the end shows
    also: { on text alone: "{out}/text.json" }          named evaluations; their means are shown too
    baseline: "{out}/baseline.json"                     the evaluation that it is compared with, on the same clips
    made: ["{out}/fuse/model"]                          what the end names
    next: emit predict clip.mp4 --model {out}/fuse/model

`{name}` is the value of a variable, within one word of the command whatever it holds; a word with `{name*}` is repeated
for each value of a list. An option with an empty value is left out.
"""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.cli import COMMANDS
from shared.config import ROOT
from shared.errors import UserError
from shared.options.yaml_files import read_yaml
from shared.registry import nearest

KEYS = ["summary", "variables", "steps", "score", "also", "baseline", "made", "next", "offline", "source", "departures"]
PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(\*?)\}")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Checkpoint:
    """Published weights."""

    name: str
    """OWNER/NAME on the Hugging Face Hub."""
    license: str
    """As stated by its origin."""

    @property
    def terms(self) -> str:
        """The license and what it forbids."""
        forbids = ": no commercial use, neither of them nor of what is trained from them" if self._restricted else ""
        return f"license {self.license}{forbids}"

    @property
    def _restricted(self) -> bool:
        return "-nc" in self.license.lower()


@dataclass(frozen=True)
class Variable:
    """What a person may set: `name=value`."""

    name: str
    help: str
    default: Any = None
    """None: left out, unless it is required."""
    required: bool = False
    checkpoint: Checkpoint | None = None
    """The weights expected in its value, a folder."""


@dataclass(frozen=True)
class Step:
    """One command."""

    name: str
    run: str
    """Its command line, with placeholders."""
    condition: str = ""


@dataclass(frozen=True)
class Loop:
    """Steps repeated for each combination of values, or steps that share a condition."""

    over: dict[str, str | list[Any]]
    """{name inside: variable that holds the list, or the list itself}."""
    steps: tuple["Step | Loop", ...]
    condition: str = ""


@dataclass(frozen=True)
class PipelineRecipe:
    """A recipe, checked: its keys, placeholders and commands exist."""

    file: Path
    summary: str
    variables: dict[str, Variable]
    steps: tuple[Step | Loop, ...]
    score: str = ""
    made: tuple[str, ...] = ()
    next: str = ""
    offline: bool = False
    """Nothing may be downloaded: its steps run with HF_HUB_OFFLINE=1."""
    source: str = ""
    """The publication that it follows."""
    baseline: str = ""
    """The evaluation of a cheap baseline to compare the score with."""
    departures: tuple[str, ...] = ()
    """Differences from the source."""
    also: Mapping[str, str] = field(default_factory=dict)
    """{name: evaluation} of variants; their means are shown below the score."""

    @property
    def name(self) -> str:
        return self.file.stem


def shipped_recipes() -> dict[str, Path]:
    """{name: file} of the recipes of this package."""
    return {file.stem: file for file in sorted((ROOT / "shared" / "recipes").glob("*.yaml"))}


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe: `name` is a YAML file, or the name of a shipped one. UserError names the nearest one."""
    if Path(name).is_file():
        return Path(name)
    shipped = shipped_recipes()
    if str(name) not in shipped:
        raise UserError(f"{name}: no such recipe; give a YAML file, or {nearest(str(name), shipped)}")
    return shipped[str(name)]


def read_recipe(name: str | Path) -> PipelineRecipe:
    """Read and check a recipe. UserError begins with its file."""
    file = find_recipe(name)
    try:
        content = read_yaml(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    where = str(file)
    content = _mapping(content, where, KEYS, needed=("summary", "steps"))
    variables: dict[str, Variable] = {}
    for variable, value in _mapping(content.get("variables"), f"{where}: variables").items():
        variables[variable] = _variable(variable, value, f"{where}: variables.{variable}", variables)
    out = variables["out"].default if "out" in variables else None
    if not isinstance(out, str) or not out.strip():
        raise UserError(f"{where}: variables has no 'out' with a default; every recipe names the folder of its results")
    recipe = PipelineRecipe(
        file,
        _text(content["summary"], f"{where}: summary"),
        variables,
        _steps(content["steps"], f"{where}: steps"),
        _text(content.get("score", ""), f"{where}: score"),
        _texts(content, "made", where),
        _text(content.get("next", ""), f"{where}: next"),
        _switch(content.get("offline", False), f"{where}: offline"),
        _text(content.get("source", ""), f"{where}: source"),
        _text(content.get("baseline", ""), f"{where}: baseline"),
        _texts(content, "departures", where),
        {
            name: _text(value, f"{where}: also.{name}")
            for name, value in _mapping(content.get("also"), f"{where}: also").items()
        },
    )
    _check_steps(recipe.steps, set(variables), where)
    for text in (recipe.score, recipe.baseline, *recipe.also.values(), *recipe.made):
        _check_placeholders(text, set(variables), where)
    if recipe.next:
        _check_command(recipe.next, set(variables), f"{where}: next")
    return recipe


def _mapping(value: Any, where: str, keys: Sequence[str] = (), needed: tuple[str, ...] = ()) -> dict[str, Any]:
    """The names and values in a part of the file; only names in `keys`, if given."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UserError(f"{where}: names with values are expected, such as {{name: value}}")
    for key in value:
        if keys and key not in keys:
            raise UserError(f"{where}: no key {key!r} here: {nearest(str(key), keys)}")
    for key in needed:
        if value.get(key) in (None, "", []):
            raise UserError(f"{where}: {key!r} is missing")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{where}: a list is expected")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{where}: is {value!r}: a text is expected")
    return value


def _texts(content: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    return tuple(_text(part, f"{where}: {key}") for part in _list(content.get(key, []), f"{where}: {key}"))


def _switch(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: is {value!r}: expected true or false")
    return value


def _variable(name: Any, value: Any, where: str, earlier: Mapping[str, Variable]) -> Variable:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{where}: a variable has a name of small letters, digits and _")
    if isinstance(value, str):
        return Variable(name, value, required=True)
    value = _mapping(value, where, ("default", "help", "checkpoint", "license"), needed=("help",))
    default, checkpoint = value.get("default"), None
    if "checkpoint" in value or "license" in value:
        value = _mapping(value, where, needed=("checkpoint", "license"))
        checkpoint = Checkpoint(*(_text(value[key], f"{where}.{key}") for key in ("checkpoint", "license")))
    if isinstance(default, dict):
        raise UserError(f"{where}: the default is a text, a number, a switch or a list")
    if isinstance(default, str):
        _check_placeholders(default, set(earlier), where)
    return Variable(name, _text(value["help"], where), default, checkpoint=checkpoint)


def _steps(value: Any, where: str) -> tuple[Step | Loop, ...]:
    steps: list[Step | Loop] = []
    for number, part in enumerate(_list(value, where), 1):
        place = f"{where}[{number}]"
        if isinstance(part, dict) and "steps" in part:
            part = _mapping(part, place, ("for", "if", "steps"), needed=("steps",))
            condition = _text(part.get("if", ""), f"{place}.if")
            over = _mapping(part.get("for"), f"{place}.for")
            steps.append(Loop(over, _steps(part["steps"], f"{place}.steps"), condition))
        else:
            part = _mapping(part, place, ("name", "run", "if"), needed=("name", "run"))
            name, run, condition = (_text(part.get(key, ""), f"{place}.{key}") for key in ("name", "run", "if"))
            steps.append(Step(name, run, condition))
    return tuple(steps)


def _check_steps(steps: tuple[Step | Loop, ...], known: set[str], where: str) -> None:
    """UserError for a placeholder, condition or list with an unknown variable, and for a line that is not a command."""
    for step in steps:
        if step.condition and (name := step.condition.removeprefix("not ").strip()) not in known:
            raise UserError(f"{where}: if: {step.condition}: no variable {name!r}: {nearest(name, known)}")
        if isinstance(step, Loop):
            for name, values in step.over.items():
                if name in known or not NAME.fullmatch(str(name)):
                    raise UserError(f"{where}: for: {name!r} is taken, or no name; choose another")
                if isinstance(values, str) and values not in known:
                    raise UserError(f"{where}: for: {name}: no variable {values!r}: {nearest(values, known)}")
                if not isinstance(values, str | list):
                    raise UserError(f"{where}: for: {name}: a list, or a variable that holds one, is expected")
            _check_steps(step.steps, known | set(step.over), where)
            continue
        command = _check_command(step.run, known, f"{where}: step {step.name!r}")
        if command in ("run", "demo"):
            raise UserError(f"{where}: step {step.name!r}: a recipe runs no recipe; write its steps here")


def _check_command(line: str, known: set[str], where: str) -> str:
    """The name of the emit command in a line. UserError if there is none."""
    _check_placeholders(line, known, where)
    words = command_words(line, where)
    if len(words) < 2 or words[0] != "emit" or words[1] not in COMMANDS:
        hint = nearest(words[1], COMMANDS) if len(words) > 1 else "such as emit check {data}"
        raise UserError(f"{where}: {line[:60]!r} is no emit command; {hint}")
    return words[1]


def _check_placeholders(text: str, known: set[str], where: str) -> None:
    for name, _ in PLACEHOLDER.findall(text):
        if name not in known:
            hint = nearest(name, known) if known else "none comes before it"
            raise UserError(f"{where}: {{{name}}}: no variable {name!r}: {hint}")


def command_words(line: str, where: str) -> list[str]:
    """The words of a command line, split as in a shell."""
    try:
        return shlex.split(line)
    except ValueError as error:
        raise UserError(f"{where}: not readable as a command ({error}): {line[:60]}") from None


def all_steps(steps: tuple[Step | Loop, ...]) -> Iterator[Step]:
    """All steps, including steps in loops."""
    for step in steps:
        if isinstance(step, Loop):
            yield from all_steps(step.steps)
        else:
            yield step
