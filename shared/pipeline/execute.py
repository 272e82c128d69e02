"""Running a recipe: each step once, in order or several at once; steps that are done and up to date are skipped."""

import os
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shared.cli import INTERNAL, call, emit_command, system_error
from shared.errors import UserError
from shared.locks import hold, release
from shared.options.outputs import check_output_folder
from shared.pipeline.at_once import run_at_once
from shared.pipeline.ending import Ending
from shared.pipeline.expand import expand, in_recipe_words, resolve
from shared.pipeline.plan import PlannedStep, plan_steps
from shared.pipeline.published import license_lines, require_weights
from shared.pipeline.recipe_file import PipelineRecipe, shipped_recipes
from shared.pipeline.steps import Steps, check_ended
from shared.terminal.closing import closing
from shared.terminal.messages import note
from shared.terminal.modes import debugging, modes
from shared.terminal.results import STEP, result
from shared.text import one_line

LOCK = ".recipe.lock"


def run_recipe(recipe: PipelineRecipe, given: Mapping[str, str], dry_run: bool = False, jobs: int = 1) -> None:
    """Run the steps of a recipe that are not done yet, then print the results. given: {variable: text}. jobs: most
    steps at once.

    UserError before the first step for a wrong variable or option, a missing input, an output that is not writable, or
    another run in the same folder; later, for the first step that fails."""
    if recipe.offline:
        os.environ["HF_HUB_OFFLINE"] = "1"
    values = resolve(recipe, given)
    require_weights(recipe, values)
    for line in license_lines(recipe, values):
        note(line)
    lines = expand(recipe, values)
    out = Path(values["out"])
    check_output_folder(out, option="out")
    steps = plan_steps(lines)
    if dry_run:
        result("\n".join(map(str, lines)), {"commands": [str(line) for line in lines]})
        return
    hold(out, out, LOCK)
    try:
        made = Steps(recipe, steps, out, run_line(recipe, given))
        run_at_once(made, jobs) if jobs > 1 else _run_in_order(made)
    finally:
        release(out)
    end = Ending(recipe, values, made.seconds(), jobs)
    result("\n".join(end.lines()), end.document())
    closing(end.made(), end.next())


def run_line(recipe: PipelineRecipe, given: Mapping[str, str]) -> str:
    """The `emit run` command line with these variables."""
    shipped = recipe.file in shipped_recipes().values()
    named = recipe.name if shipped else str(recipe.file)
    return shlex.join(["emit", "run", named, *(f"{name}={value}" for name, value in given.items())])


def _run_in_order(steps: Steps) -> None:
    """Run the steps that are not done, one after the other."""
    for number, step in enumerate(steps.steps):
        if steps.begin(number):
            began = time.perf_counter()
            run_step(step, steps.recipe)
            steps.finish(number, time.perf_counter() - began)


def run_step(step: PlannedStep, recipe: PipelineRecipe) -> None:
    """Run one step. Without a GPU it runs in this process, which imports torch, transformers and open_clip once for all
    steps; with a GPU it runs in its own process, which frees the GPU for the next step. UserError if it fails.
    """
    import torch

    words = step.line.words[1:]
    status: Any
    try:
        status = _in_a_process(words) if torch.cuda.is_available() else call(list(words))
    except UserError as error:
        print(f"error: {in_recipe_words(str(error), recipe)}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # run_main handles it
        raise
    except SystemExit as stop:  # invalid options, already reported
        status = stop.code
    except (OSError, MemoryError) as error:
        print(f"error: {system_error(error)}", file=sys.stderr)
        status = 1
    except Exception as error:
        if debugging():
            traceback.print_exc()
        print(
            f"internal error: {type(error).__name__}: {one_line(error, 300)}; run again with --debug", file=sys.stderr
        )
        status = INTERNAL
    check_ended(step, recipe, status)


def _in_a_process(words: Sequence[str]) -> int:
    environment = {**os.environ, STEP: "1"}
    return subprocess.run(emit_command(*words, *modes().words()), env=environment, check=False).returncode
