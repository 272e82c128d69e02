"""Running a recipe: each step once, in order; what is done and still true is skipped."""

import os
import shlex
import signal
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
from shared.pipeline.ending import Ending
from shared.pipeline.expand import expand, in_recipe_words, resolve
from shared.pipeline.journal import Journal
from shared.pipeline.plan import PlannedStep, made_from, plan_steps
from shared.pipeline.published import license_lines, require_weights
from shared.pipeline.recipe_file import PipelineRecipe, shipped_recipes
from shared.terminal.closing import closing
from shared.terminal.messages import note, say
from shared.terminal.modes import debugging, modes
from shared.terminal.results import STEP, result
from shared.text import one_line

LOCK = ".recipe.lock"


def run_recipe(recipe: PipelineRecipe, given: Mapping[str, str], dry_run: bool = False) -> None:
    """Run the steps of a recipe that are not done yet, then print what was made. given: {variable: text}.

    UserError before any step for a wrong variable or option, a missing input, an output that is not writable, and a
    second run in the same folder; then for the first step that fails."""
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
        seconds = _run_steps(recipe, steps, out, run_line(recipe, given))
    finally:
        release(out)
    end = Ending(recipe, values, seconds)
    result("\n".join(end.lines()), end.document())
    closing(end.made(), end.next())


def run_line(recipe: PipelineRecipe, given: Mapping[str, str]) -> str:
    """The `emit run` that gives these variables."""
    shipped = recipe.file in shipped_recipes().values()
    named = recipe.name if shipped else str(recipe.file)
    return shlex.join(["emit", "run", named, *(f"{name}={value}" for name, value in given.items())])


def _run_steps(recipe: PipelineRecipe, steps: list[PlannedStep], out: Path, run: str) -> dict[str, float]:
    """Run what is not done; {step: seconds it took, also in an earlier run}."""
    journal = Journal(out)
    seconds: dict[str, float] = {}
    for number, step in enumerate(steps, 1):
        name, depends_on = step.line.name, made_from(step, out)
        place = f"== {name} ({number} of {len(steps)})"
        entry = journal.finished(step, depends_on)
        if entry is not None:
            say(f"{place}: already done: {step.line}")
            seconds[name] = entry.seconds
            continue
        why = journal.why_again(step, depends_on)
        journal.begin(step, depends_on, run)
        say(f"\n{place}{': again, ' if why else ''}{why}: {step.line}")
        began = time.perf_counter()
        run_step(step, recipe)
        seconds[name] = time.perf_counter() - began
        journal.finish(step, seconds[name])
    return seconds


def run_step(step: PlannedStep, recipe: PipelineRecipe) -> None:
    """Run one step. Without a GPU it runs in this process, which imports torch, transformers and open_clip once for all
    steps; with a GPU it runs in a process of its own, which frees the GPU for the next step. UserError when it fails.
    """
    import torch

    words, name = step.line.words[1:], step.line.name
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
    if status == 128 + signal.SIGTERM:
        note(f"the step {name!r} was stopped; run {recipe.name} again to continue from its checkpoint")
        sys.exit(status)
    if status:
        raise UserError(
            f"the step {name!r} failed (status {status}); mend the error above, then run {recipe.name} again, which "
            f"goes on here; this step alone: {step.line}"
        )
    if step.run_folder and not (step.run_folder / "metrics.json").exists():
        raise UserError(f"the step {name!r} was stopped; run {recipe.name} again to continue from its checkpoint")
    for output in step.outputs:
        if not output.path.exists():
            raise UserError(f"the step {name!r} has not written {output.path}; this step alone: {step.line}")


def _in_a_process(words: Sequence[str]) -> int:
    environment = {**os.environ, STEP: "1"}
    return subprocess.run(emit_command(*words, *modes().words()), env=environment, check=False).returncode
