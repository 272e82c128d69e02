"""`emit run RECIPE`: a whole pipeline, step by step."""

import itertools
import shlex
import sys
import textwrap
from dataclasses import dataclass, field

from shared import config as configuration
from shared.errors import UsageError
from shared.options.help_page import wants_help
from shared.options.ranges import CheckedOptions, Workers
from shared.pipeline.execute import run_recipe
from shared.pipeline.expand import parse_assignments
from shared.pipeline.recipe_file import PipelineRecipe, all_steps, read_recipe, shipped_recipes
from shared.terminal.closing import closing
from shared.terminal.results import result


@dataclass
class RunConfig(CheckedOptions):
    """Run the steps of a recipe. Steps already done from the same inputs are skipped; `emit run RECIPE --help` shows
    its variables."""

    recipe: str = ""
    """A shipped recipe or a YAML file; without one, the shipped recipes are listed."""
    variables: list[str] = field(default_factory=list)
    """Values of the recipe's variables, each NAME=VALUE."""
    jobs: Workers = 1
    """Number of independent steps to run in parallel. Each has its own process and its share of the cores
    (OMP_NUM_THREADS, unless it is set); a GPU is shared. With a different number of threads, results may differ in
    their last digits."""
    dry_run: bool = False
    """Check the options of every step, and print the commands instead of running them."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit run`; 0 when every step succeeded."""
    words = sys.argv[1:] if argv is None else argv
    options, words = _split_options(words)
    help_requested, every = wants_help(words)
    recipe_name = next((word for word in words if not word.startswith("-") and (word, every) != ("all", True)), "")
    if recipe_name and help_requested:
        print("\n".join(describe(read_recipe(recipe_name))))
        return 0
    if recipe_name:
        words = _without_dashes(words, read_recipe(recipe_name))
    config = configuration.parse(
        RunConfig,
        [*options, *words],
        prog="emit run",
        example="emit run own data=my_clips/labels.csv out=runs/mine",
        positional=("recipe", "variables"),
    )
    if not config.recipe:
        result("\n".join(list_recipes()), {name: read_recipe(name).summary for name in shipped_recipes()})
        closing(then=[("run", "own", "--help")])
        return 0
    recipe = read_recipe(config.recipe)
    run_recipe(recipe, parse_assignments(recipe, config.variables), config.dry_run, config.jobs)
    return 0


def _split_options(words: list[str]) -> tuple[list[str], list[str]]:
    """The options of `emit run` itself, at any position, and the other words."""
    options: list[str] = []
    rest: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--jobs":
            options += [word, *itertools.islice(remaining, 1)]
        else:
            (options if word.startswith(("--jobs=", "--dry_run")) else rest).append(word)
    return options, rest


def _without_dashes(words: list[str], recipe: PipelineRecipe) -> list[str]:
    """The words, with --name=value as name=value if it names a variable. UsageError if it lacks the =."""
    changed = []
    for i, word in enumerate(words):
        name, sign, _ = word.removeprefix("--").partition("=")
        if word.startswith("--") and name in recipe.variables:
            if not sign:
                value = words[i + 1] if words[i + 1 :] and not words[i + 1].startswith("-") else "VALUE"
                raise UsageError(f"{word}: variables of a recipe have no --; write {shlex.quote(f'{name}={value}')}")
            word = word.removeprefix("--")
        changed.append(word)
    return changed


def list_recipes() -> list[str]:
    """The shipped recipes, a line each."""
    names = shipped_recipes()
    width = max(map(len, names))
    lines = [f"  {name:<{width}}  {read_recipe(name).summary}" for name in names]
    return [*lines, "`emit run RECIPE --help` shows the variables of a recipe."]


def describe(recipe: PipelineRecipe) -> list[str]:
    """Summary, variables with their reasons and defaults, and the names of the steps."""
    needed = [f"{name}=..." for name, variable in recipe.variables.items() if variable.required]
    shown = recipe.name if recipe.file in shipped_recipes().values() else shlex.quote(str(recipe.file))
    usage = " ".join(["usage: emit run", shown, *needed, "[NAME=VALUE ...] [--jobs N] [--dry_run]"])
    lines = [usage, "       `emit run --help` explains --jobs and --dry_run", "", recipe.summary]
    lines += [f"source: {recipe.source}"] if recipe.source else []
    if recipe.departures:
        lines += ["", "departures from the source:"]
        for departure in recipe.departures:
            lines += textwrap.wrap(departure, 100, initial_indent="  - ", subsequent_indent="    ")
    lines += ["", "variables:"]
    for name, variable in recipe.variables.items():
        default = "required" if variable.required else f"default: {_shown(variable.default)}"
        lines += [f"  {name} ({default})", *_indented(variable.help)]
        if variable.checkpoint:
            published = variable.checkpoint
            lines += _indented(f"hf download {published.name} --local-dir DIR; {published.terms}")
    return [*lines, "", "steps:", *(f"  {step.name}: {step.run}" for step in all_steps(recipe.steps))]


def _indented(text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="      ", subsequent_indent="      ", break_on_hyphens=False)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
