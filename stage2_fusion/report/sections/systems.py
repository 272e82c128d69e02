"""All systems of the runs in one table, with their differences from the reported system."""

import json
from pathlib import Path

from shared.text import counted
from stage2_fusion.evaluation.leaderboard import Leaderboard, LeaderboardRow, build_leaderboard
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.verdict import signed
from stage2_fusion.report.baseline import cheap_baselines
from stage2_fusion.report.content import Figure, NotFound, Section, Table
from stage2_fusion.report.figures import REFERENCE, SYSTEM, WIDE, clean_axes, new_figure, short
from stage2_fusion.report.inputs import Inputs

RESAMPLES = 1000
MOST_SYSTEMS = 40
"""Rows of the figure."""


def systems(inputs: Inputs) -> Section | None:
    """The leaderboard; None if there is only one system."""
    main = inputs.evaluation
    section = Section("Systems compared")
    comparable: list[Evaluation] = []
    others: list[Evaluation] = []
    for each in inputs.all_evaluations:
        fits = each.names == main.names and each.scale == main.scale and each.info.split == main.info.split
        (comparable if fits else others).append(each)
    section.missing += [
        f"{run.given} has no evaluation: run `emit evaluate --model MODEL --data FEATURES`, with that MODEL in it"
        for run in inputs.runs[1:]
        if not run.evaluations
    ]
    section.missing += [
        f"{each.path}: of {_difference(each, main)}, so it cannot be compared with {main.path}" for each in others
    ]
    try:
        found = cheap_baselines(inputs)
        comparable += [baseline for baseline in found if not any(each is baseline for each in comparable)]
    except NotFound:
        pass  # the section of the score says so
    if len(comparable) < 2:
        return section if section.missing else None
    named = name_systems(comparable)
    against = next(name for name, parts in named.items() if any(part is main for part in parts))
    board = build_leaderboard(named, against, RESAMPLES, 0)
    for row in board.rows:
        if row.seeds is None:  # a reference, in brackets
            row.system = row.system.strip("()").removeprefix("labels of the ")
    section.lead = _lead(board)
    section.blocks = [_figure(board), _table(board)]
    section.notes += board.notes
    return section


def name_systems(evaluations: list[Evaluation]) -> dict[str, list[Evaluation]]:
    """{name: its evaluations}. The name is the model and, if evaluations of one model differ, what tells them apart:
    options, then the folder or the file."""
    texts = []
    for evaluation in evaluations:
        same = [each for each in evaluations if each.info.model == evaluation.info.model]
        options = [each.info.configuration or {} for each in same]
        own = evaluation.info.configuration or {}
        keys = sorted({key for other in options for key in other})
        differing = [key for key in keys if any(other.get(key) != own.get(key) for other in options)]
        shown = [f"{key}={json.dumps(own.get(key))}" for key in differing[:3]]
        seeds = {str(each.info.training_seed) for each in same}
        shown += [f"seed {evaluation.info.training_seed}"] if len(seeds) > 1 else []
        texts.append(" ".join([evaluation.info.model, *shown]))
    named: dict[str, list[Evaluation]] = {}
    for text, evaluation in zip(texts, evaluations, strict=True):
        if texts.count(text) > 1 and evaluation.path:
            text += f" ({Path(evaluation.path.parent.name) / evaluation.path.stem})"
        while text in named:
            text += " again"
        named[text] = [evaluation]
    return named


def _difference(each: Evaluation, main: Evaluation) -> str:
    if each.names != main.names:
        return "other dimensions"
    return f"split {each.info.split!r}" if each.info.split != main.info.split else "labels of another range"


def _lead(board: Leaderboard) -> str:
    against = next(row for row in board.rows if row.system == board.against)
    ahead = [row for row in board.rows if row.difference is not None and (row.difference or 0) > 0]
    systems = sorted((row for row in board.rows if row.seeds is not None), key=lambda row: -(row.pcc or 0.0))
    place = systems.index(against) + 1
    text = f"{board.against} is number {place} of {counted(len(systems), 'system')}."
    if not any(row.difference_interval for row in systems):
        return f"{text} There is no interval of the differences, so the order may be chance."
    sure = [row for row in board.rows if row.difference_interval and row.difference_interval[1] < 0]
    if sure:
        text += f" It is ahead of {_listed(sure)} beyond chance: the interval of the difference stays below 0."
    clear = [row for row in ahead if row.difference_interval and row.difference_interval[0] > 0]
    if clear:
        text += f" {_listed(clear)} beat{'s' * (len(clear) == 1)} it beyond chance."
    unsure = [r for r in systems if r.difference_interval and r.difference_interval[0] <= 0 <= r.difference_interval[1]]
    if unsure:
        text += f" These clips cannot tell whether it differs from {_listed(unsure)}."
    return text


def _listed(rows: list[LeaderboardRow]) -> str:
    names = [short(row.system, 60) for row in rows]
    return (
        names[0] if len(names) == 1 else f"{', '.join(names[:4])}" + (f" and {len(names) - 4} more" * (len(names) > 4))
    )


def _figure(board: Leaderboard) -> Figure:
    rows = [row for row in board.rows if row.pcc is not None][:MOST_SYSTEMS]
    figure, axes = new_figure(WIDE, 0.8 + 0.3 * len(rows))
    for place, row in enumerate(rows):
        assert row.pcc is not None
        color = SYSTEM if row.system == board.against else REFERENCE
        if row.interval:
            axes.plot(row.interval, [place, place], color=color, linewidth=2, solid_capstyle="butt")
        axes.plot([row.pcc], [place], "o" if row.seeds else "D", color=color, markersize=6 if row.seeds else 4.5)
    axes.set_yticks(range(len(rows)), [short(row.system, 46) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("PCC, mean over dimensions")
    clean_axes(axes, "x")
    shown = "; ".join(f"{row.system} {row.pcc:.3f}" for row in rows)
    caption = "Dots: mean PCC; lines: 95 % interval; diamonds: references that are not systems."
    return Figure("systems", f"Systems by mean PCC: {shown}.", figure, caption)


def _table(board: Leaderboard) -> Table:
    header = ["system", "clips", "PCC", "95 % interval", "difference (95 %)", *board.names]
    rows = []
    for row in board.rows:
        difference = "" if row.difference is None else signed(row.difference)
        if row.difference_interval:
            difference += " ({} to {})".format(*map(signed, row.difference_interval))
        interval = "{:.3f} to {:.3f}".format(*row.interval) if row.interval else "–"
        each = ["–" if value is None else f"{value:.3f}" for value in map(row.per_dimension.get, board.names)]
        pcc = "n/a" if row.pcc is None else f"{row.pcc:.3f}"
        rows.append(
            [row.system + " (baseline)" * row.baseline, str(row.clips or "–"), pcc, interval, difference, *each]
        )
    caption = (
        f"Cheap baselines, then systems, best first. Differences are from {board.against}, paired on the same clips."
    )
    return Table(caption, header, rows, range(1, len(header)))
