"""A map of the embeddings of the three modalities, colored by intensity."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import is_constant
from shared.text import counted
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.report.content import Figure, Grid, NotFound, Section
from stage2_fusion.report.figures import MODALITY_COLORS, MUTED, PURPLE, TEXT, WIDTH, new_figure, short
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.scored import scored_features

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CLIPS = 600
"""Most clips on the map; from more clips, an even sample of this size."""
MOST_DIMENSIONS = 12
FEWEST = 8
"""Fewest clips of a modality on the map."""


@dataclass(frozen=True)
class Projection:
    """Embeddings on their first two principal components."""

    points: dict[str, np.ndarray]
    """float64 (N, 2) of each modality."""
    shares: tuple[float, float]
    """Share of the variance that each component shows."""


def project(embeddings: dict[str, np.ndarray], centered: bool) -> Projection:
    """Principal components of the stacked embeddings (N, D) of all modalities. centered: subtract the mean of each
    modality first, so that the map shows the variation within modalities. A component has the sign of its largest
    weight."""
    parts = {name: values - values.mean(0) if centered else values for name, values in embeddings.items()}
    stacked = np.concatenate(list(parts.values()))  # (N, D)
    mean = stacked.mean(0)
    _, singular, components = np.linalg.svd(stacked - mean, full_matrices=False)  # (C,), (C, D)
    axes = np.zeros((2, stacked.shape[1]))
    axes[: len(components)] = components[:2]
    axes *= np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1, 1)[:, None]
    variance = np.square(singular)
    total = variance.sum() or 1.0
    first, second = (float(value / total) for value in [*variance, 0.0, 0.0][:2])
    return Projection({name: (values - mean) @ axes.T for name, values in parts.items()}, (first, second))


def gap_share(embeddings: dict[str, np.ndarray]) -> float:
    """Share of the variance of all embeddings that lies between the means of the modalities, in [0, 1]."""
    stacked = np.concatenate(list(embeddings.values()))
    mean = stacked.mean(0)
    total = float(np.square(stacked - mean).sum())
    between = sum(len(values) * float(np.square(values.mean(0) - mean).sum()) for values in embeddings.values())
    return between / total if total > 0 else 0.0


def multiple_correlation(points: np.ndarray, labels: np.ndarray) -> float | None:
    """How well a plane over the map (N, 2) fits labels (N,), NaN = not labeled: the correlation of the fit, in [0, 1].
    None if fewer than FEWEST are labeled, or all are equal."""
    known = ~np.isnan(labels)
    if known.sum() < FEWEST or is_constant(labels[known]):
        return None
    design = np.column_stack([points[known], np.ones(known.sum())])  # (N, 3)
    target = labels[known].astype(np.float64)  # (N,)
    fit = design @ np.linalg.lstsq(design, target, rcond=None)[0]  # (N,)
    explained = np.square(fit - target.mean()).sum() / np.square(target - target.mean()).sum()
    return float(np.sqrt(np.clip(explained, 0, 1)))


def embedding_map(inputs: Inputs) -> Section:
    """The section."""
    data = scored_features(inputs)
    clips = [views[0] for views in data.by_clip() if 0 in views]
    clips = [clips[i] for i in np.unique(np.linspace(0, len(clips) - 1, MOST_CLIPS).round().astype(int))]
    rows, embeddings = {}, {}
    for name in MODALITIES:
        chosen = [i for i, sample in enumerate(clips) if sample.modality(name).pooled.any()]
        if len(chosen) >= FEWEST:
            rows[name] = np.array(chosen)
            embeddings[name] = np.stack([clips[i].modality(name).pooled for i in chosen]).astype(np.float64)  # (N, D)
    if not embeddings:
        why = (
            "features from a dataset or another tool share no space"
            if data.info.encoders.given
            else f"no modality has embeddings of {FEWEST} clips"
        )
        raise NotFound(f"no map of the embeddings: {why}")
    labels = np.stack([sample.labels for sample in clips])  # (N, K)
    section = Section("Embeddings", _lead(embeddings, len(clips)))
    by_modality, within = project(embeddings, False), project(embeddings, True)
    figures = [_by_modality(by_modality)] if len(embeddings) > 1 else []
    order = np.argsort([-_best_fit(within, rows, labels[:, k]) for k in range(labels.shape[1])], kind="stable")
    for k in sorted(order[:MOST_DIMENSIONS]):  # the best ones, in the order of the other sections
        figures.append(_by_intensity(within, rows, labels[:, k], data, int(k)))
    section.blocks.append(Grid(figures, _caption(by_modality, within)))
    if labels.shape[1] > MOST_DIMENSIONS:
        section.missing.append(f"{counted(labels.shape[1] - MOST_DIMENSIONS, 'dimension')}, which the map shows least")
    return section


def _lead(embeddings: dict[str, np.ndarray], clips: int) -> str:
    text = (
        f"Each dot is one clip of {clips}, placed by its encoder, before stage 2. If color changes "
        "from one side to the other, the aligned encoders alone tell the intensity; R says how well a plane fits it."
    )
    if len(embeddings) > 1:
        share = gap_share(embeddings)
        text += f" {share:.0%} of the variance lies between the modalities" + (
            ": a clip's picture, sound and words lie apart, as is usual after contrastive training."
            if share > 0.3
            else ": they share one region of the space."
        )
    return text


def _caption(by_modality: Projection, within: Projection) -> str:
    first, second = within.shares
    text = (
        f"Principal components of the shared space, {first:.0%} and {second:.0%} of the variance within modalities; "
        "the mean of each modality is subtracted. Gray: lowest intensity, purple: highest."
    )
    if len(by_modality.points) > 1:
        text += f" By modality: {by_modality.shares[0]:.0%} and {by_modality.shares[1]:.0%}, nothing subtracted."
    return text


def _best_fit(projection: Projection, rows: dict[str, np.ndarray], labels: np.ndarray) -> float:
    fits = [multiple_correlation(points, labels[rows[name]]) for name, points in projection.points.items()]
    return max((fit for fit in fits if fit is not None), default=-1.0)


def _by_modality(projection: Projection) -> Figure:
    figure, axes = new_figure(WIDTH, 1.9)
    figure.set_dpi(150)
    for name, points in projection.points.items():
        axes.scatter(*points.T, s=5, color=MODALITY_COLORS[name], alpha=0.5, linewidths=0, rasterized=True)
        center = points.mean(0)
        axes.annotate(name, center, color=TEXT, weight="bold", ha="center", va="center")
    axes.set_title("By modality")
    _bare(axes)
    counts = ", ".join(f"{len(points)} of {name}" for name, points in projection.points.items())
    return Figure("map-modalities", f"Map of the embeddings by modality: {counts}.", figure)


def _by_intensity(
    projection: Projection, rows: dict[str, np.ndarray], labels: np.ndarray, data: FeatureDataset, k: int
) -> Figure:
    """labels (N,): fractions of the range of dimension k."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    colors = LinearSegmentedColormap.from_list("intensity", [to_rgba(MUTED, 0.28), to_rgba(PURPLE, 1.0)])
    count, name = len(projection.points), data.info.label_names[k]
    figure, panels = new_figure(WIDTH, 1.9, columns=count, squeeze=False, sharex=True, sharey=True)
    figure.set_dpi(150)
    high = float(np.nanmax(labels)) if not np.isnan(labels).all() else 1.0
    fits = []
    for axes, (modality, points) in zip(panels[0], projection.points.items(), strict=True):
        values = labels[rows[modality]]
        order = np.argsort(np.nan_to_num(values, nan=-1), kind="stable")
        known = order[~np.isnan(values[order])]
        unknown = order[np.isnan(values[order])]
        axes.scatter(*points[unknown].T, s=3, color=MUTED, alpha=0.15, linewidths=0, rasterized=True)
        shade = colors(values[known] / (high or 1.0))
        axes.scatter(*points[known].T, s=7, color=shade, linewidths=0, rasterized=True)
        fit = multiple_correlation(points, values)
        fits.append(f"{modality} {'n/a' if fit is None else f'{fit:.2f}'}")
        axes.set_xlabel(f"{modality}\nR {'n/a' if fit is None else f'{fit:.2f}'}")
        _bare(axes)
    figure.suptitle(short(name), x=0.02, ha="left", fontsize=9.5, fontweight="bold")
    alt = f"Map of the embeddings by intensity of {name}; fit of a plane: {', '.join(fits)}."
    return Figure(f"map-dimension-{k + 1}", alt, figure)


def _bare(axes: "Axes") -> None:
    """Axes without ticks: positions on the map have no unit."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)
