"""The last lines of a run: the score, the results, and the next command."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import read_object
from shared.metrics import FEW_GROUPS
from shared.pipeline.expand import filled_words, substitute
from shared.pipeline.recipe_file import PipelineRecipe
from shared.registry import Registry
from shared.text import counted

VERDICTS = Registry("verdict", {"baseline": "stage2_fusion.evaluation.verdict:baseline_verdict"})
"""Named by import path: this package imports no stage."""
MOST_TIMED = 12
"""With more steps, only their total time is shown."""


@dataclass(frozen=True)
class Ending:
    """The output after the last step, for a person or, with --json, for a program."""

    recipe: PipelineRecipe
    values: Mapping[str, Any]
    """Values of the variables."""
    seconds: Sequence[tuple[str, float]]
    """(name, seconds) of each step; steps in different loops may share a name."""
    jobs: int = 1
    """Most steps at once; with more than one, the run takes less than the sum of the times."""

    def metrics(self) -> dict[str, Any] | None:
        """The evaluation to show."""
        return self._evaluation(self.recipe.score)

    def also(self) -> dict[str, dict[str, Any]]:
        """The evaluations of variants that exist, by name."""
        read = {name: self._evaluation(path) for name, path in self.recipe.also.items()}
        return {name: metrics for name, metrics in read.items() if metrics}

    def _evaluation(self, path: str) -> dict[str, Any] | None:
        file = substitute(path, self.values)
        return read_object(Path(file), "metrics", "run the recipe again") if file and Path(file).is_file() else None

    def lines(self) -> Iterator[str]:
        metrics = self.metrics()
        yield from score_lines(metrics) if metrics else ()
        for name, other in self.also().items():
            yield f"  mean {name}: {_mean(other['pcc'])}"
        if verdict := self.verdict():
            yield f"  {verdict}"
        if len(self.seconds) <= MOST_TIMED:
            yield ", ".join(f"{name} {value:.0f} s" for name, value in self.seconds)
        else:
            in_sum = f" in sum, up to {self.jobs} at once" if self.jobs > 1 else ""
            minutes = sum(value for _, value in self.seconds) / 60
            yield f"{counted(len(self.seconds), 'step')}, {minutes:.0f} minutes{in_sum}"

    def verdict(self) -> str | None:
        """The score next to the cheap baseline on the same clips, if the recipe computed one."""
        score, baseline = (Path(substitute(text, self.values)) for text in (self.recipe.score, self.recipe.baseline))
        if not (self.recipe.baseline and score.is_file() and baseline.is_file()):
            return None
        try:
            return VERDICTS.get("baseline")(score, baseline)
        except UserError as error:
            return f"the cheap baseline is not compared: {error}"

    def made(self) -> list[Path]:
        """The results named by the recipe that exist."""
        paths = (Path(substitute(path, self.values)) for path in self.recipe.made)
        return [path for path in paths if path.exists()]

    def next(self) -> list[list[str]]:
        """The words after `emit` of the next command."""
        return [filled_words(self.recipe.next, self.values)[1:]] if self.recipe.next else []

    def document(self) -> dict[str, Any]:
        metrics = self.metrics()
        commands = [shlex.join(["emit", *words]) for words in self.next()]
        also = {name: other["pcc"] for name, other in self.also().items()}
        scores = {"pcc": metrics and metrics["pcc"], "also": also, "verdict": self.verdict()}
        steps = [{"name": name, "seconds": value} for name, value in self.seconds]
        return {**scores, "steps": steps, "wrote": self.made(), "next": commands}


def score_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """The scores of an evaluation, next to the ceiling that its labels allow, if known."""
    pcc, ceiling = metrics["pcc"], metrics.get("ceiling")
    names = [*pcc["per_dimension"], "ceiling"]
    width = max(16, 2 + max(map(len, names)))
    yield f"\nmean PCC on the {metrics.get('split') or 'all'} clips ({metrics['n']})"
    for name, value in pcc["per_dimension"].items():
        yield f"  {name:<{width}}{_number(value)}"
    yield f"  {'mean':<{width}}{_mean(pcc)}"
    if unmet := metrics.get("unmet"):
        clips = f"{counted(unmet['pcc']['n'], 'clip')} of unmet {' and '.join(unmet['kinds'])}"
        yield f"  on {clips}: {_mean(unmet['pcc'])}   {unmet['why']}".rstrip()
    share = metrics.get("share_of_ceiling")
    if ceiling:
        reached = f"   {share:.0%} of it reached" if share is not None else ""
        yield f"  {'ceiling':<{width}}{_number(ceiling['mean'])}{reached}"
    yield from _group_lines(metrics)


def _mean(pcc: dict[str, Any]) -> str:
    interval = pcc["interval"]
    return f"{_number(pcc['mean'])}{f'   95 % interval {interval[0]:.3f} to {interval[1]:.3f}' if interval else ''}"


def _group_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """The number of people in the scored clips, if known, and what it means for the interval."""
    count, kind = metrics.get("groups"), (metrics.get("clips") or {}).get("group") or "group"
    if not isinstance(count, int):
        return
    few = "" if count >= FEW_GROUPS else f": with fewer than {FEW_GROUPS} the interval is too narrow"
    yield f"  clips of {counted(count, kind)}{few if metrics['pcc']['interval'] else ', too few for an interval'}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
