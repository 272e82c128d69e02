"""Learning curves of both stages, from their logs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.errors import UserError
from shared.text import counted
from stage2_fusion.report.content import Block, Figure, Grid, Group, NotFound, Section
from stage2_fusion.report.figures import SYSTEM, clean_axes, new_figure, pair_color, whole_ticks
from stage2_fusion.report.inputs import Inputs, read_option
from stage2_fusion.report.repeat import exported

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 300
"""Most points of a curve; a longer log is averaged over equal runs of steps."""
LITTLE = 0.05
"""Training that adds less mean recall than this counts as no improvement."""
Log = list[dict[str, Any]]
PARTS = {"mse": "MSE", "pcc": "1 − PCC", "ccc": "1 − CCC", "quality": "weights of damage"}
"""{part of the loss in the log of stage 2: its label}."""


def curves(inputs: Inputs) -> Section:
    """Loss and validation score over the steps."""
    section = Section("Learning curves")
    leads = []
    for title, make in (("Stage 1: alignment", _align), ("Stage 2: fusion", _fuse)):
        try:
            lead, figures = make(inputs)
        except (NotFound, UserError) as reason:
            section.missing.append(str(reason))
            continue
        leads.append(lead)
        blocks: list[Block] = [Grid(figures)]
        section.blocks.append(Group(title, blocks))
    if not section.blocks:
        return section
    section.lead = " ".join(leads)
    return section


def _align(inputs: Inputs) -> tuple[str, list[Figure]]:
    log, run = inputs.align_log, inputs.align_run
    train, valid = _lines(log, "mean_recall", f"no curve of stage 1: {run}/log.jsonl holds no step yet")
    figures = []
    if train:
        pairs = sorted({key for line in train for key in line if key.startswith("loss_")})
        named = {key: key.removeprefix("loss_").replace("_", "–") for key in pairs}
        figures.append(_loss_figure("align-loss", train, named if len(named) > 1 else {}, "contrastive loss"))
    lead = "Stage 1 logged no validation."
    if valid:
        best = max(valid, key=lambda line: line["mean_recall"])
        lead = (
            f"Stage 1 found the partner of a validation clip best after step {best['step']:g} (mean recall "
            f"{best['mean_recall']:.3f}, {valid[0]['mean_recall']:.3f} before training)."
        )
        if exported(inputs) == "last" and best is not valid[-1]:
            lead += (
                f" The encoders of the last step, {valid[-1]['step']:g}, were exported (`emit export --which last`)."
            )
        if valid[0]["step"] == 0 and best["mean_recall"] - valid[0]["mean_recall"] < LITTLE:
            lead += " Training hardly changed that: these encoders match clips little better than random ones."
        lead += _still_rising(valid, best)
        figures.append(_valid_figure("align-valid", valid, "step", "mean_recall", best, "mean recall, validation"))
    return lead, figures


def _fuse(inputs: Inputs) -> tuple[str, list[Figure]]:
    log, run = inputs.fuse_log, inputs.fuse_run
    train, valid = _lines(log, "valid_pcc", f"no curve of stage 2: {run}/log.jsonl holds no epoch yet")
    figures = []
    if train:
        weights = read_option(inputs.fuse_run, "loss")
        weights = weights if isinstance(weights, dict) else dict.fromkeys(PARTS, 1.0)
        parts = {key: label for key, label in PARTS.items() if weights.get(key) and any(key in line for line in train)}
        figures.append(_loss_figure("fuse-loss", train, parts, "loss, training"))
    rising = _rising(train, weights if train else {})
    lead = f"Stage 2 logged no validation.{rising}"
    if valid:
        best = max(valid, key=lambda line: line["valid_pcc"])
        x = "epoch" if all(is_number(line.get("epoch")) for line in valid) else "step"
        lead = (
            f"Stage 2 reached its best validation PCC, {best['valid_pcc']:.3f}, at {x} {best[x]:g} of {valid[-1][x]:g}"
        )
        lead += f", and that model was kept.{rising}"
        lead += _still_rising(valid, best)
        figures.append(_valid_figure("fuse-valid", valid, x, "valid_pcc", best, "PCC, validation"))
    return lead, figures


def _lines(log: Log, score: str, nothing: str) -> tuple[Log, Log]:
    """The lines with a loss, and the lines with a validation score. NotFound if there are neither."""
    train, valid = ([line for line in log if is_number(line.get(key))] for key in ("loss", score))
    if not train and not valid:
        raise NotFound(nothing)
    return train, valid


def _still_rising(valid: Log, best: dict[str, Any]) -> str:
    return " It still improved at the end: more epochs may help." * (best is valid[-1] and len(valid) > 2)


def _rising(train: Log, weights: dict[str, Any]) -> str:
    """Why the weighted sum rises while its parts fall; "" if it does not."""
    ramp = weights.get("ramp_epochs")
    if not isinstance(ramp, int | float) or ramp < 2 or max(line["loss"] for line in train) <= train[0]["loss"]:
        return ""
    return (
        f" The weighted sum of the loss may rise while its parts fall: the weight of the correlation term grows over "
        f"the first {ramp:g} epochs."
    )


def _loss_figure(name: str, lines: Log, parts: dict[str, str], label: str) -> Figure:
    """The loss and its parts over the steps."""
    figure, axes = new_figure()
    x, y = thinned(lines, "step", "loss")
    axes.plot(x, y, color=SYSTEM, label="weighted sum")
    for place, (key, part) in enumerate(parts.items()):
        axes.plot(*thinned(lines, "step", key), color=pair_color(key, place), linewidth=1.2, label=part)
    if parts:
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.2)
    axes.set_ylim(bottom=0)
    _label(axes, "step", label)
    return Figure(name, f"{label} over {counted(len(lines), 'log line')}: from {y[0]:.3f} to {y[-1]:.3f}.", figure)


def _valid_figure(name: str, lines: Log, x: str, y: str, best: dict[str, Any], label: str) -> Figure:
    """A validation score, with its best point marked."""
    figure, axes = new_figure()
    axes.plot([line[x] for line in lines], [line[y] for line in lines], color=SYSTEM, marker="o", markersize=3.5)
    axes.plot([best[x]], [best[y]], "o", color=SYSTEM, markersize=8, markerfacecolor="none")
    axes.annotate(f"{best[y]:.3f}", (best[x], best[y]), xytext=(0, 8), textcoords="offset points", ha="center")
    axes.margins(y=0.18)
    _label(axes, x, label)
    count = counted(len(lines), "validation")
    return Figure(name, f"{label}: best {best[y]:.3f} at {x} {best[x]:g}, {count}.", figure)


def _label(axes: "Axes", x: str, y: str) -> None:
    axes.set(xlabel=x, ylabel=y)
    whole_ticks(axes)
    clean_axes(axes)


def thinned(lines: Log, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the lines that have both, averaged over equal runs to at most MOST_POINTS: (n,) each."""
    pairs = [(line[x], line[y]) for line in lines if is_number(line.get(x)) and is_number(line.get(y))]
    values = np.array(pairs, dtype=np.float64).reshape(-1, 2)  # (N, 2)
    parts: Sequence[np.ndarray] = np.array_split(values, min(MOST_POINTS, max(1, len(values))))
    means = np.array([part.mean(axis=0) for part in parts if len(part)]).reshape(-1, 2)
    return means[:, 0], means[:, 1]


def is_number(value: Any) -> bool:
    """Whether a value of a log is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
