"""How the score falls as a modality is damaged or missing in more clips."""

from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.files import read_object
from shared.text import counted
from stage2_fusion.evaluation.robustness import RobustnessRow
from stage2_fusion.report.content import Figure, Grid, NotFound, Section
from stage2_fusion.report.figures import MODALITY_COLORS, SERIES, WIDTH, clean_axes, new_figure, short
from stage2_fusion.report.inputs import Inputs

CAPTION = (
    "Bands: 95 % interval over groups. Lines start apart if they cover different clips: damaged covers clips "
    "with a view in which only this modality is damaged, missing covers all clips with the modality."
)
LINES = {"damaged": "-", "missing": "--"}
MOST_MODELS = 6


def robustness(inputs: Inputs) -> Section:
    """The section: the curves of the first file of `emit robustness`."""
    paths = list(dict.fromkeys(path for run in inputs.runs for path in run.robustness))
    if not paths:
        raise NotFound(
            "no robustness curve: run `emit robustness RUN/model --data FEATURES --out RUN/robustness.json`, then the "
            "report again"
        )
    rows = read_robustness(paths[0])
    models = list(dict.fromkeys(row.model for row in rows))
    section = Section("Robustness", _lead(rows, models))
    bounds = [value for row in rows for value in (row.pcc, row.low, row.high) if value is not None]
    limits = min(bounds) - 0.02, max(bounds) + 0.02
    if len(models) == 1:
        figures = [_figure(name, [row for row in rows if row.modality == name], models, limits) for name in MODALITIES]
    else:
        figures = [
            _figure(f"{name}-{how}", [row for row in rows if (row.modality, row.how) == (name, how)], models, limits)
            for name in MODALITIES
            for how in LINES
        ]
    section.blocks.append(Grid([figure for figure in figures if figure is not None], CAPTION))
    if len(models) > MOST_MODELS:
        section.missing.append(
            f"the curves of {len(models) - MOST_MODELS} of {counted(len(models), 'model')}; {paths[0]} has them"
        )
    if len(paths) > 1:
        section.missing.append(f"the curves in {', '.join(map(str, paths[1:]))}: one file is shown")
    return section


def read_robustness(path: Path) -> list[RobustnessRow]:
    """The rows of a file of `emit robustness` that have a PCC. UserError when it is damaged or has none."""
    how = "run `emit robustness` again"
    content: dict[str, Any] = read_object(path, "file of emit robustness", how)
    try:
        rows = [RobustnessRow(**row) for row in content["rows"]]
        rows = [row for row in rows if row.pcc is not None and 0 <= float(row.share) <= 1 and np.isfinite(row.pcc)]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); {how}") from None
    if not rows:
        raise UserError(f"{path}: holds no score; {how} on labeled clips")
    return rows


def _lead(rows: list[RobustnessRow], models: list[str]) -> str:
    """The largest fall when all clips are affected."""
    full = [row for row in rows if row.share == 1 and row.fall is not None and row.model == models[0]]
    text = "PCC when a growing share of the clips has one modality damaged or missing."
    if full:
        worst = max(full, key=lambda row: row.fall or 0.0)
        every = f"{worst.modality} {worst.how} in every clip"
        text += f" Worst for {models[0]}: {every}, which costs {worst.fall:.3f}"
        if worst.fall_low is not None and worst.fall_high is not None:
            text += f" (95 % interval {worst.fall_low:.3f} to {worst.fall_high:.3f})"
        text += "."
    return text


def _figure(name: str, rows: list[RobustnessRow], models: list[str], limits: tuple[float, float]) -> Figure | None:
    if not rows:
        return None
    figure, axes = new_figure(WIDTH, 2.4)
    shown = []
    for number, model in enumerate(models[:MOST_MODELS]):
        for how, line in LINES.items():
            points = sorted((row for row in rows if (row.model, row.how) == (model, how)), key=lambda row: row.share)
            if not points:
                continue
            color = MODALITY_COLORS[points[0].modality] if len(models) == 1 else SERIES[number % len(SERIES)]
            shares = [row.share for row in points]
            values = [row.pcc for row in points]
            axes.plot(
                shares, values, line, color=color, marker="o", ms=3, label=how if len(models) == 1 else short(model, 24)
            )
            if all(row.low is not None and row.high is not None for row in points):
                low, high = [row.low for row in points], [row.high for row in points]
                axes.fill_between(shares, low, high, color=color, alpha=0.12, linewidth=0)  # type: ignore[arg-type]
            shown.append(f"{model} {how} {values[0]:.3f} to {values[-1]:.3f}")
    modality, _, how = name.partition("-")
    axes.set_title(f"{modality.capitalize()} {how}".strip())
    axes.set_xlabel("share of the clips")
    axes.set_ylabel("PCC")
    axes.set_xlim(-0.02, 1.02)
    axes.set_xticks([0, 0.5, 1], ["none", "half", "all"])
    axes.set_ylim(*limits)
    axes.legend(loc="lower left")
    clean_axes(axes)
    return Figure(f"robustness-{name}", f"PCC as {modality} gets worse: {'; '.join(shown)}.", figure)
