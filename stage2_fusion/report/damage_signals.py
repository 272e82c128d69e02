"""Learned weights and raw quality signals as detectors of the same known damage."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import interval, roc_auc
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.evaluation.damage_detection import ABSENT

RESAMPLES = 300
"""Bootstrap samples behind the intervals."""


@dataclass(frozen=True)
class Detector:
    """A number of each clip that may tell damaged from undamaged ones."""

    name: str
    auc: float
    """ROC AUC, in the better of the two directions for a raw signal."""
    low_is_damaged: bool
    by_kind: dict[str, float]
    """AUC of each kind of damage against the undamaged clips."""


@dataclass(frozen=True)
class Comparison:
    """The detectors of damage to one modality, of the same clips."""

    modality: str
    known_from: str
    damaged: int
    undamaged: int
    weight: Detector
    weight_interval: list[float] | None
    """95 % bootstrap interval over groups."""
    signals: list[Detector]
    """Best first."""
    lead: float
    """AUC of the weight less that of the best signal."""
    lead_interval: list[float] | None


@dataclass(frozen=True)
class Rows:
    """Clips that show a modality, damaged or not."""

    groups: np.ndarray
    """(N,), what the bootstrap draws: a damaged view and its undamaged clip have the same."""
    kinds: np.ndarray
    """(N,), "" = undamaged."""
    weight: np.ndarray
    """(N,)."""
    shown: np.ndarray
    """(N,), which modalities a clip shows, as a number: weights are comparable between equal ones alone."""
    signals: np.ndarray
    """(N, Q), means over the steps of a clip."""

    def auc(self, values: np.ndarray, chosen: np.ndarray | None = None) -> float:
        """AUC of high `values` as a detector of damage, of all rows or those `chosen`; NaN when none compare."""
        rows = slice(None) if chosen is None else chosen
        return roc_auc(values[rows], (self.kinds != "")[rows], self.shown[rows])


def compare(
    modality: str,
    known_from: str,
    samples: Sequence[FeatureSample],
    kinds: Sequence[str],
    groups: Sequence[str],
    weights: np.ndarray,
    names: Sequence[str],
    seed: int = 0,
) -> Comparison | None:
    """Compare the learned weight of a modality with its raw quality signals `names` on N samples, whose damage to the
    modality is `kinds` ("" = none); groups: drawn by the bootstrap; weights (N, 3). None when there are
    no pairs of damaged and undamaged clips that show the same modalities."""
    rows = _rows(modality, samples, np.array(kinds, dtype=object), np.array(groups, dtype=object), weights)
    weight = _detector("learned weight", -rows.weight, rows, chosen=True)
    if weight is None:
        return None
    columns = [(name, rows.signals[:, q]) for q, name in enumerate(names) if np.ptp(rows.signals[:, q]) > 0]
    signals = [d for name, values in columns if (d := _detector(name, -values, rows, chosen=False)) is not None]
    signals.sort(key=lambda detector: -detector.auc)
    best = None
    if signals:
        values = rows.signals[:, list(names).index(signals[0].name)]
        best = -values if signals[0].low_is_damaged else values
    draws = _bootstrap(rows, best, seed)
    damaged = int((rows.kinds != "").sum())
    return Comparison(
        modality,
        known_from,
        damaged,
        len(rows.kinds) - damaged,
        weight,
        interval(draws[:, 0]),
        signals,
        weight.auc - signals[0].auc if signals else float("nan"),
        interval(draws[:, 0] - draws[:, 1]) if signals else None,
    )


def _rows(
    modality: str, samples: Sequence[FeatureSample], kinds: np.ndarray, groups: np.ndarray, weights: np.ndarray
) -> Rows:
    m = MODALITIES.index(modality)
    keep = np.flatnonzero((weights[:, m] > 0) & ~np.isin(kinds, ABSENT))
    parts = [samples[i].modality(modality) for i in keep]
    width = samples[0].modality(modality).quality.shape[1] if len(samples) else 0
    signals = [part.quality.mean(axis=0, dtype=np.float64) for part in parts]
    return Rows(
        groups=groups[keep],
        kinds=kinds[keep],
        weight=weights[keep, m].astype(np.float64),
        shown=(weights[keep] > 0) @ np.array([1, 2, 4]),
        signals=np.array(signals).reshape(len(keep), width),
    )


def _detector(name: str, low: np.ndarray, rows: Rows, chosen: bool) -> Detector | None:
    """low: the negated values. chosen: the direction is given, low means damaged."""
    auc = rows.auc(low)
    if np.isnan(auc):
        return None
    low_is_damaged = chosen or auc >= 0.5
    values = low if low_is_damaged else -low
    clean, by_kind = rows.kinds == "", {}
    for kind in sorted(set(rows.kinds[~clean])):
        value = rows.auc(values, clean | (rows.kinds == kind))
        if not np.isnan(value):
            by_kind[str(kind)] = value
    return Detector(name, auc if low_is_damaged else 1 - auc, low_is_damaged, by_kind)


def _bootstrap(rows: Rows, best: np.ndarray | None, seed: int) -> np.ndarray:
    """AUC of the weight and of the best signal in resamples of groups: (R, 2), NaN where a resample has no pairs. One
    group alone is the same in every resample and tells nothing about others: (0, 2)."""
    _, group = np.unique(rows.groups, return_inverse=True)  # (N,)
    if group.max(initial=0) == 0:
        return np.zeros((0, 2))
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=-1) + 2))
    members = [order[a:b] for a, b in itertools.pairwise(starts)]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        pair = [rows.auc(-rows.weight, drawn), np.nan if best is None else rows.auc(best, drawn)]
        draws.append(pair)
    return np.array(draws)
