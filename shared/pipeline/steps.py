"""The steps of a run: which ones must run, according to the journal, and whether they succeeded."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from shared.errors import UserError
from shared.pipeline.journal import Journal
from shared.pipeline.plan import PlannedStep, made_from
from shared.pipeline.recipe_file import PipelineRecipe
from shared.terminal.messages import note, say


class Steps:
    """The steps of a run in the order of the recipe, numbered from 0."""

    def __init__(self, recipe: PipelineRecipe, steps: Sequence[PlannedStep], out: Path, run: str):
        """run: the `emit run` that runs them."""
        self.recipe, self.steps, self.out, self.run = recipe, steps, out, run
        self._journal = Journal(out)
        self._seconds: dict[int, float] = {}

    def name(self, number: int) -> str:
        return self.steps[number].line.name

    def place(self, number: int) -> str:
        """The beginning of the lines about a step."""
        return f"== {self.name(number)} ({number + 1} of {len(self.steps)})"

    def begin(self, number: int, gap: str = "\n") -> bool:
        """Print and record that a step starts; False if it is already done. The steps that it depends on are done.
        UserError as in `Journal.begin`. gap: goes before the line."""
        step = self.steps[number]
        depends_on = made_from(step, self.out)
        entry = self._journal.finished(step, depends_on)
        if entry is not None:
            say(f"{self.place(number)}: already done: {step.line}")
            self._seconds[number] = entry.seconds
            return False
        why = self._journal.why_again(step, depends_on)
        self._journal.begin(step, depends_on, self.run)
        say(f"{gap}{self.place(number)}{': again, ' if why else ''}{why}: {step.line}")
        return True

    def finish(self, number: int, seconds: float) -> None:
        """Record that a step is done."""
        self._seconds[number] = seconds
        self._journal.finish(self.steps[number], seconds)

    def seconds(self) -> list[tuple[str, float]]:
        """(name, seconds) of each step that is done, in this run or an earlier one."""
        return [(self.name(number), self._seconds[number]) for number in sorted(self._seconds)]


def check_ended(step: PlannedStep, recipe: PipelineRecipe, status: int) -> None:
    """UserError if a step that ended with this status failed, was stopped, or has not written its outputs; SystemExit
    if it was stopped by SIGTERM."""
    name = step.line.name
    if status == 128 + signal.SIGTERM:
        note(f"the step {name!r} was stopped; run {recipe.name} again to continue from its checkpoint")
        sys.exit(status)
    if status:
        raise UserError(
            f"the step {name!r} failed (status {status}); fix the error above and run {recipe.name} again to "
            f"continue here; this step alone: {step.line}"
        )
    if step.run_folder and not (step.run_folder / "metrics.json").exists():
        raise UserError(f"the step {name!r} was stopped; run {recipe.name} again to continue from its checkpoint")
    for output in step.outputs:
        if not output.path.exists():
            raise UserError(f"the step {name!r} has not written {output.path}; this step alone: {step.line}")
