"""Choose the clips that a report shows: the best, the worst and the least certain."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import average_ranks, is_constant
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FusionModel


@dataclass(frozen=True)
class ScoredClip:
    """One clip with its prediction."""

    id: str
    predictions: np.ndarray
    """float64 (K,), fractions of the range of each dimension."""
    labels: np.ndarray
    """float64 (K,), the same; NaN = not labeled."""
    error: float | None
    """Mean over the labeled dimensions of |prediction - label|, as a share of the range; None without labels."""
    spread: float | None
    """See `spread_without`; None if unknown."""
    interval: tuple[np.ndarray, np.ndarray] | None = None
    """Lower and upper bounds (K,) of the intervals of the predictions; None if the model has none."""


@dataclass(frozen=True)
class Choice:
    """Clips of one kind."""

    title: str
    note: str
    """How they are chosen."""
    clips: list[ScoredClip]


def clip_errors(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 (N,): mean over the labeled dimensions of |prediction - label|, both (N, K) fractions of their range; NaN
    for a clip without labels."""
    known = ~np.isnan(labels)
    total = np.where(known, np.abs(predictions - np.where(known, labels, 0)), 0).sum(axis=1)  # (N,)
    return np.where(known.any(axis=1), total / np.maximum(known.sum(axis=1), 1), np.nan)


def spread_without(model: FusionModel, samples: Sequence[FeatureSample], batch_size: int = 64) -> np.ndarray:
    """How far predictions move if one modality is left out: float64 (N,), the mean of |without it - with all| over
    present modalities and dimensions, as a share of the range. NaN for a clip with fewer than two modalities that the
    model reads."""
    read = set(model.options.modalities) & set(model.reads)
    names = [name for name in MODALITIES if name in read]
    present = np.array([[sample.modality(name).steps > 0 for name in names] for sample in samples])  # (N, M)
    present &= present.sum(axis=1, keepdims=True) > 1
    full = run_model(model, list(samples), batch_size).predictions  # (N, K)
    moved = np.zeros(present.shape)
    for m, name in enumerate(names):
        rows = np.flatnonzero(present[:, m])
        if len(rows):
            without = run_model(model, [samples[i].without(name) for i in rows], batch_size).predictions
            moved[rows, m] = np.abs(without - full[rows]).mean(axis=1)
    counts = present.sum(axis=1)
    return np.where(counts > 0, moved.sum(axis=1) / np.maximum(counts, 1), np.nan)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation of a and b (N,); None when one of them is constant."""
    x, y = average_ranks(a), average_ranks(b)
    return None if is_constant(a) or is_constant(b) else float(np.corrcoef(x, y)[0, 1])


def partial_rank_correlation(a: np.ndarray, b: np.ndarray, given: np.ndarray) -> float | None:
    """Spearman's partial rank correlation of a and b (N,) given `given` (N,); None if it is not defined."""
    ab, ac, bc = (rank_correlation(*pair) for pair in ((a, b), (a, given), (b, given)))
    if ab is None or ac is None or bc is None or max(abs(ac), abs(bc)) > 1 - 1e-9:
        return ab
    return float((ab - ac * bc) / np.sqrt((1 - ac**2) * (1 - bc**2)))


def choose_clips(clips: Sequence[ScoredClip], count: int) -> list[Choice]:
    """Up to `count` clips of each kind, each clip once.

    Best and worst are by error. The best clips have a label above the median of the strongest labels: if nothing is
    expressed, a small error is no success.
    """
    labeled = [clip for clip in clips if clip.error is not None]
    strongest = [float(np.nanmax(clip.labels)) for clip in labeled]
    middle = float(np.median(strongest)) if strongest else 0.0
    expressive = [clip for clip, value in zip(labeled, strongest, strict=True) if value >= middle and value > 0]
    best = sorted(expressive or labeled, key=lambda clip: (clip.error, clip.id))
    worst = sorted(labeled, key=lambda clip: (-(clip.error or 0.0), clip.id))
    doubtful = sorted((c for c in clips if c.spread is not None), key=lambda clip: (-(clip.spread or 0.0), clip.id))
    kinds = [
        (
            "Worst",
            "The largest mean absolute error over the dimensions. Look here first: is the label odd, the face lost, "
            "the voice somebody else's?",
            worst,
        ),
        (
            "Least certain",
            "The prediction moves most if picture, sound or words are left out: the modalities disagree.",
            doubtful,
        ),
        (
            "Best",
            "The smallest mean absolute error among the half of the clips with the strongest labels: if nothing is "
            "expressed, a small error is no success.",
            best,
        ),
    ]
    taken: set[str] = set()
    choices = []
    for title, note, ranked in kinds:
        chosen = [clip for clip in ranked if clip.id not in taken][:count]
        taken |= {clip.id for clip in chosen}
        if chosen:
            choices.append(Choice(title, note, chosen))
    return choices
