"""Predictions against labels, a scatter plot per dimension."""

import numpy as np

from shared.text import counted
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.scoring import format_pcc
from stage2_fusion.report.content import Figure, Grid, NotFound, Section
from stage2_fusion.report.figures import MOST_MARKS, MUTED, SYSTEM, new_figure, short, tips
from stage2_fusion.report.inputs import Inputs

FEW_CLIPS = 50
MOST_DIMENSIONS = 24
"""Most scatter plots on the page; the table of the score has all dimensions."""


def dimensions(inputs: Inputs) -> Section:
    """A scatter plot of each dimension."""
    evaluation = inputs.evaluation
    columns = [k for k in range(len(evaluation.names)) if not np.isnan(evaluation.labels[:, k]).all()]
    if not columns:
        raise NotFound("no clip of this evaluation is labeled")
    section = Section("Predicted against labeled", _lead(evaluation))
    shown = columns[:MOST_DIMENSIONS]
    section.blocks = [
        Grid(
            [_scatter(evaluation, k) for k in shown],
            "Each point is a clip; dashed: prediction = label"
            + ("; in brackets the 95 % interval." if evaluation.scores.pcc.interval else "."),
        )
    ]
    if len(columns) > len(shown):
        section.missing.append(
            f"pictures of {len(columns) - len(shown)} more dimensions; their scores are in the table"
        )
    return section


def _lead(evaluation: Evaluation) -> str:
    known = {name: value for name, value in evaluation.scores.pcc.per_dimension.items() if value is not None}
    text = "The label runs to the right, the prediction up: a perfect model puts every clip on the dashed line."
    if len(known) > 1:
        best, worst = max(known, key=known.__getitem__), min(known, key=known.__getitem__)
        text += f" {best} is followed best (PCC {known[best]:.3f}), {worst} worst ({known[worst]:.3f})."
        if evaluation.scores.n < FEW_CLIPS:
            text += f" With {counted(evaluation.scores.n, 'clip')}, one of them can reverse that order."
    spread = relative_spread(evaluation)
    if spread is not None and spread < 0.9:
        text += (
            f" The predictions vary {spread:.2f} times as much as the labels: they stay close to the mean, which PCC "
            "forgives and CCC does not."
        )
    return text


def relative_spread(evaluation: Evaluation) -> float | None:
    """Standard deviation of the predictions divided by that of the labels, median over dimensions; None if no labels
    vary."""
    ratios = []
    for k in range(len(evaluation.names)):
        labels = evaluation.labels[:, k]
        known = ~np.isnan(labels)
        if known.sum() > 2 and labels[known].std() > 0:
            ratios.append(float(evaluation.predictions[known, k].std() / labels[known].std()))
    return float(np.median(ratios)) if ratios else None


def _scatter(evaluation: Evaluation, k: int) -> Figure:
    name, scores = evaluation.names[k], evaluation.scores
    known = ~np.isnan(evaluation.labels[:, k])
    x, y = evaluation.labels[known, k].astype(np.float64), evaluation.predictions[known, k]  # (N,)
    figure, axes = new_figure(height=3.5)
    low, high = evaluation.scale.ranges[name]
    low, high = min(low, x.min(), y.min()), max(high, x.max(), y.max())
    margin = 0.03 * (high - low)
    axes.plot([low, high], [low, high], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    many = len(x) > MOST_MARKS
    few = len(x) < FEW_CLIPS
    size, alpha = (36, 0.8) if few else (6, 0.5) if many else (14, 0.5)
    marks = axes.scatter(x, y, s=size, color=SYSTEM, alpha=alpha, linewidths=0, rasterized=many)
    if not many:
        ids = [name for name, keep in zip(evaluation.ids, known, strict=True) if keep]
        values = zip(ids, x, y, strict=True)
        marks.set_urls(
            tips([f"{short(clip)}: label {label:.3g}, predicted {value:.3g}" for clip, label, value in values])
        )
    axes.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin), aspect="equal")
    axes.set(xlabel="label", ylabel="prediction")
    interval = scores.pcc.interval_per_dimension[name]
    between = f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    pcc, ccc = format_pcc(scores.pcc.per_dimension[name]), format_pcc(scores.ccc.per_dimension[name])
    axes.set_title(short(name, 30))
    zeros = int((x <= evaluation.scale.ranges[name][0]).sum())
    facts = (
        f"PCC {pcc}{between}, CCC {ccc}. {zeros} of {counted(len(x), 'clip', 'is', 'are')} labeled "
        f"{evaluation.scale.ranges[name][0]:g}."
    )
    alt = f"{name}: {counted(len(x), 'clip')}, prediction against label. {facts}"
    return Figure(f"dimension-{k + 1:02d}", alt, figure, facts)
