"""Drawings of one clip: its content, and the model's predictions, weights and attention."""

from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.label_scale import LabelScale
from stage2_fusion.inference import StepExplanation
from stage2_fusion.report.clip_choice import ScoredClip
from stage2_fusion.report.content import Figure
from stage2_fusion.report.figures import (
    BLUE,
    MODALITY_COLORS,
    MUTED,
    PURPLE,
    TEXT,
    WIDTH,
    clean_axes,
    new_figure,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CROPS = 6
CROP_SIDE = 64
"""Pixels: small, because a report holds a hundred of them."""
MOST_ROWS = 8
"""Most dimensions in the drawings of a clip, by highest label or prediction."""
COVERAGE = 0.9
"""Coverage of the drawn intervals."""
BINS = 240
"""Columns of a drawn waveform."""


def shown_dimensions(clip: ScoredClip) -> list[int]:
    """The dimensions to draw, in order."""
    highest = np.fmax(clip.predictions, clip.labels)  # (K,) fmax leaves out NaN
    return sorted(np.argsort(-highest, kind="stable")[:MOST_ROWS].tolist())


def scores_figure(name: str, clip: ScoredClip, names: list[str], scale: LabelScale) -> Figure:
    """Labels beside predictions, on the scale of the labels if it is the same for all."""
    rows = shown_dimensions(clip)
    is_one_scale = len({*map(tuple, scale.ranges.values())}) == 1
    low, high = (float(scale.lowest[0]), float(scale.highest[0])) if is_one_scale else (0.0, 1.0)
    predicted, labeled = (low + values * (high - low) for values in (clip.predictions, clip.labels))  # (K,)
    figure, axes = new_figure(WIDTH, 0.75 + 0.3 * len(rows))
    for y, k in enumerate(reversed(rows)):
        if clip.interval is not None:
            ends = [low + float(end[k]) * (high - low) for end in clip.interval]
            axes.plot(ends, [y, y], color=BLUE, lw=6, alpha=0.2, solid_capstyle="butt", zorder=0)
        if not np.isnan(labeled[k]):
            axes.plot([labeled[k], predicted[k]], [y, y], color=MUTED, lw=1.2, zorder=1)
            axes.plot([labeled[k]], [y], "o", mfc="none", mec=TEXT, ms=6.5, mew=1.3, zorder=2)
        axes.plot([predicted[k]], [y], "o", color=BLUE, ms=6, zorder=3)
    axes.set_yticks(range(len(rows)), [short(names[k], 24) for k in reversed(rows)])
    axes.tick_params(axis="y", length=0)
    margin = 0.03 * (high - low)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    if not is_one_scale:
        axes.set_xlabel("share of the range of each dimension")
    axes.plot([], [], "o", color=BLUE, ms=6, label="predicted")
    if not np.isnan(labeled).all():
        axes.plot([], [], "o", mfc="none", mec=TEXT, ms=6.5, mew=1.3, label="labeled")
    if clip.interval is not None and not np.isnan(clip.interval[0][rows]).all():
        axes.plot([], [], color=BLUE, lw=6, alpha=0.2, label=f"{COVERAGE:.0%} interval")
    figure.legend(loc="outside upper right", ncols=3, handlelength=1, handletextpad=0.6, columnspacing=1, borderpad=0)
    clean_axes(axes, "x")
    shown = ", ".join(f"{names[k]} {_number(predicted[k])} ({_number(labeled[k])})" for k in rows)
    return Figure(f"{name}-scores", f"Predictions, and labels in parentheses: {shown}.", figure)


def _number(value: float) -> str:
    return "not labeled" if np.isnan(value) else f"{value:.2f}"


def timeline_figure(
    name: str, clip: ScoredClip, sample: ClipSample | None, steps: StepExplanation | None, names: list[str]
) -> Figure | None:
    """Face crops, waveform, weights of the modalities and attention of the dimensions over time, as far as available;
    None if nothing is."""
    has_faces = sample is not None and len(sample.frames) > 0
    has_sound = sample is not None and len(sample.waveform) > 0
    rows = shown_dimensions(clip)
    attention = steps.attention if steps is not None and steps.times is not None and len(steps.times) > 1 else None
    parts = [("faces", 0.47)] * has_faces + [("sound", 0.5)] * has_sound
    parts += [("weights", 0.85)] * (steps is not None)
    parts += [("attention", 0.16 * len(rows) + 0.1)] * (attention is not None)
    if not parts:
        return None
    heights = [height for _, height in parts]
    height = sum(heights) + 0.55 + 0.1 * len(parts)
    figure, drawn = new_figure(WIDTH, height, rows=len(parts), sharex=True, squeeze=False, height_ratios=heights)
    panels = dict(zip([part for part, _ in parts], drawn[:, 0], strict=True))
    seconds = _duration(sample, steps)
    if sample is not None and has_faces:
        _draw_faces(panels["faces"], sample, seconds)
    if sample is not None and has_sound:
        _draw_sound(panels["sound"], sample, seconds)
    if steps is not None:
        _draw_weights(panels["weights"], steps, seconds)
    if attention is not None and steps is not None:
        _draw_attention(panels["attention"], steps, attention[rows], [names[k] for k in rows], seconds)
    drawn[-1, 0].set_xlim(0, seconds)
    drawn[-1, 0].set_xlabel("seconds")
    return Figure(f"{name}-time", f"Clip {short(clip.id, 60)} over time: {', '.join(panels)}.", figure)


def _duration(sample: ClipSample | None, steps: StepExplanation | None) -> float:
    if sample is not None and sample.duration > 0:
        return sample.duration
    times = steps.times if steps is not None else None
    return float(times[-1]) if times is not None and len(times) and times[-1] > 0 else 1.0


def strip_rows(times: np.ndarray, seconds: float, count: int = CROPS) -> list[int]:
    """The frame in the middle of each of `count` equal parts of a clip: the last frame at or before it."""
    middles = (np.arange(count) + 0.5) * seconds / count
    return np.clip(np.searchsorted(times, middles, side="right") - 1, 0, len(times) - 1).tolist()


def _draw_faces(axes: "Axes", sample: ClipSample, seconds: float) -> None:
    import cv2

    width = seconds / CROPS
    for place, row in enumerate(strip_rows(sample.frame_times, seconds)):
        crop = cv2.resize(sample.frames[row], (CROP_SIDE, CROP_SIDE), interpolation=cv2.INTER_AREA)
        axes.imshow(crop, extent=(place * width, (place + 1) * width, 0, 1), aspect="auto", interpolation="none")
    axes.set_ylim(0, 1)
    axes.set_axis_off()


def envelope(waveform: np.ndarray, bins: int = BINS) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest sample in at most `bins` equal parts of a waveform (S,), S >= 1."""
    starts = np.unique(np.linspace(0, len(waveform), min(bins, len(waveform)) + 1).astype(int)[:-1])
    return np.minimum.reduceat(waveform, starts), np.maximum.reduceat(waveform, starts)


def _draw_sound(axes: "Axes", sample: ClipSample, seconds: float) -> None:
    low, high = envelope(sample.waveform)
    times = (np.arange(len(low)) + 0.5) * seconds / len(low)
    axes.fill_between(times, low, high, color=MUTED, linewidth=0.4)
    limit = max(0.05, float(np.abs(sample.waveform).max()) * 1.05)
    axes.set_ylim(-limit, limit)
    axes.set_yticks([])
    axes.set_ylabel("sound")
    clean_axes(axes, "")
    axes.spines["left"].set_visible(False)


def _draw_weights(axes: "Axes", steps: StepExplanation, seconds: float) -> None:
    for m, name in enumerate(MODALITIES):
        draw_steps(axes, steps.times, steps.weights[:, m], seconds, color=MODALITY_COLORS[name], label=name)
    top = max(0.1, float(steps.weights.max(initial=0.0)))
    axes.set_ylim(0, top * 1.45)
    axes.set_yticks([0, round(top, 1)])
    axes.set_ylabel("weight")
    axes.legend(loc="upper left", ncols=3, handlelength=1.2, columnspacing=1.0, borderpad=0.1)


def _draw_attention(
    axes: "Axes", steps: StepExplanation, attention: np.ndarray, names: list[str], seconds: float
) -> None:
    """attention (K, S): darker for more attention, each row scaled by its own maximum."""
    from matplotlib.colors import LinearSegmentedColormap, to_rgba

    assert steps.times is not None
    colors = LinearSegmentedColormap.from_list("attention", [to_rgba(PURPLE, 0.0), to_rgba(PURPLE, 1.0)])
    middles = (steps.times[1:] + steps.times[:-1]) / 2
    edges = np.concatenate([[max(0.0, 2 * steps.times[0] - middles[0])], middles, [seconds]])
    shades = attention[::-1] / np.maximum(attention[::-1].max(axis=1, keepdims=True), 1e-9)
    axes.pcolormesh(
        np.maximum.accumulate(edges), np.arange(len(names) + 1), shades, cmap=colors, vmin=0, vmax=1, rasterized=True
    )
    axes.set_yticks(np.arange(len(names)) + 0.5, [short(name, 16) for name in names[::-1]], fontsize=7.5)
    axes.tick_params(axis="y", length=0)
    clean_axes(axes, "")


def draw_steps(axes: "Axes", times: np.ndarray | None, values: np.ndarray, duration: float, **line: object) -> None:
    """Draw values (S,) over the seconds of their steps; a model without a time axis has one level for the whole clip.
    Steps with value 0, without the modality, are left out."""
    if not values.any():
        return
    if times is None or len(times) < 2:
        level = float(values[values > 0].mean())
        axes.plot([0, duration], [level, level], **line)  # type: ignore[arg-type]
    else:
        axes.plot(times, np.where(values > 0, values, np.nan), **line)  # type: ignore[arg-type]
