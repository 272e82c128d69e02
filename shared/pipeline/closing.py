"""The lines that end a run: the score, what was made, and what comes next."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shared.files import read_object
from shared.pipeline.expand import command_line, substitute
from shared.pipeline.recipe_file import PipelineRecipe

MOST_TIMED = 12
"""Steps whose times are listed one by one."""


def closing_lines(recipe: PipelineRecipe, values: Mapping[str, Any], seconds: Mapping[str, float]) -> Iterator[str]:
    """What a person reads after the last step. values: of the variables; seconds: of each step."""
    score = substitute(recipe.score, values)
    if score and Path(score).is_file():
        yield from score_lines(read_object(Path(score), "metrics", "run the recipe again"))
    if len(seconds) <= MOST_TIMED:
        yield ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    else:
        yield f"{len(seconds)} steps, {sum(seconds.values()) / 60:.0f} minutes"
    made = {name: substitute(path, values) for name, path in recipe.made.items()}
    made = {name: path for name, path in made.items() if Path(path).exists()}
    width = max(map(len, made), default=0)
    yield from (f"  {name:<{width}}  {path}" for name, path in made.items())
    if recipe.next:
        yield f"next: {command_line(recipe.next, values)}"


def score_lines(metrics: dict[str, Any]) -> Iterator[str]:
    """The scores of an evaluation, beside the most that its labels allow where that is known."""
    pcc, interval, ceiling = metrics["pcc"], metrics["pcc"]["interval"], metrics.get("ceiling")
    names = [*pcc["per_dimension"], "ceiling"]
    width = max(16, 2 + max(map(len, names)))
    yield f"\nmean PCC on the {metrics.get('split') or 'all'} clips ({metrics['n']})"
    for name, value in pcc["per_dimension"].items():
        yield f"  {name:<{width}}{_number(value)}"
    shown = f"   95 % interval {interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    yield f"  {'mean':<{width}}{_number(pcc['mean'])}{shown}"
    share = metrics.get("share_of_ceiling")
    if ceiling:
        reached = f"   {share:.0%} of it reached" if share is not None else ""
        yield f"  {'ceiling':<{width}}{_number(ceiling['mean'])}{reached}"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
