"""Prediction intervals that hold for new people: split conformal prediction over whole groups.

Clips of one person are not independent. Each held-out group therefore counts once and its clips share its weight, and
the new clip counts as one that may lie anywhere, with the weight of one group: hierarchical conformal prediction (Lee,
Barber, Willett 2023, arXiv 2306.06342; Dunn, Wasserman, Ramdas 2022, "Distribution-free prediction sets for two-layer
hierarchical models"). That weight assumes that all clips of a group are alike, and otherwise covers up to 2 / (groups +
1) too much. Here it is 1 / (m + 1), where m is the effective number of independent held-out clips (the design effect of
Kish 1965): the number of groups if their clips are alike, the number of clips if they are independent.
tests/benchmarks/interval_coverage.py compares these methods.

The residuals are divided by their usual size for such a prediction (Lei et al. 2018, "Distribution-free predictive
inference for regression"), measured on the training clips: most labels are zero, and a prediction near zero is rarely
far off. Validation residuals then determine the factor on that size, which therefore need not be right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

BINS = 10
"""Pieces of the curve of the usual residual over the prediction, with the same number of training clips in each."""
CLIPS_PER_BIN = 20
"""Fewest training clips per piece; with fewer clips there are fewer pieces."""
SMALLEST_SPREAD = 0.1
"""Lowest usual residual, as a fraction of its mean: training residuals can be zero if all labels are."""


def number_groups(groups: Sequence[str]) -> np.ndarray:
    """int32 (N,): the same number for the same name."""
    return np.unique(np.asarray(groups, dtype=object).astype(str), return_inverse=True)[1].astype(np.int32)


def fewest_groups(coverage: float) -> int:
    """The fewest groups that give a bound for this coverage: n / (n + 1) must reach it."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def group_weights(groups: np.ndarray) -> np.ndarray:
    """Weights (N,) that add up to 1: the same for each group of int (N,), shared equally by its clips."""
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    return 1 / (counts[index] * len(counts))


def independent_clips(hits: np.ndarray, groups: np.ndarray) -> float:
    """The effective number of independent clips, between the number of groups and the number of clips.

    hits: bool (N,), what differs between clips; groups: int (N,). The intraclass correlation comes from a one-way
    analysis of variance.
    """
    _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
    total, number = len(hits), len(counts)
    if number < 2 or number == total:
        return float(number)
    means = np.bincount(index, hits) / counts  # (G,)
    between = float((counts * (means - hits.mean()) ** 2).sum()) / (number - 1)
    within = float(((hits - means[index]) ** 2).sum()) / (total - number)
    size = (total - (counts**2).sum() / total) / (number - 1)  # mean size of a group
    spread = between + (size - 1) * within
    correlation = min(1.0, max(0.0, (between - within) / spread)) if spread > 0 else 1.0
    return float(np.clip(total / (1 + (size - 1) * correlation), number, total))


def group_quantile(scores: np.ndarray, groups: np.ndarray, coverage: float) -> float:
    """The value that the score of a clip of a new group does not exceed with probability `coverage`.

    scores: (N,), groups: int (N,) of held-out clips. Infinite if there are fewer than `fewest_groups(coverage)` groups.
    """
    if len(np.unique(groups)) < fewest_groups(coverage):
        return np.inf
    order = np.argsort(scores, kind="stable")
    shares = np.cumsum(group_weights(groups)[order])  # (N,)
    first = scores[order][min(int(np.searchsorted(shares, coverage - 1e-9)), len(scores) - 1)]
    count = independent_clips(scores <= first, groups)
    place = np.searchsorted(shares * count / (count + 1), coverage - 1e-9)
    return float(scores[order][place]) if place < len(scores) else np.inf


@dataclass(eq=False)
class ConformalIntervals:
    """Data from which intervals of K dimensions are computed. All values are fractions of the label ranges."""

    centers: np.ndarray
    """float32 (K, B): predictions, ascending, at which `spreads` is known."""
    spreads: np.ndarray
    """float32 (K, B): mean absolute residual of training clips with such a prediction."""
    scores: np.ndarray
    """float32 (N, K): absolute residuals of held-out clips over their spread, NaN = not labeled."""
    groups: np.ndarray
    """int32 (N,): their groups."""

    @classmethod
    def fit(
        cls,
        training_predictions: np.ndarray,
        training_labels: np.ndarray,
        predictions: np.ndarray,
        labels: np.ndarray,
        groups: Sequence[str],
    ) -> Self:
        """From predictions and labels (M, K) of the training clips, and (N, K) of the held-out clips with their groups;
        NaN = not labeled."""
        bins = max(1, min(BINS, len(training_labels) // CLIPS_PER_BIN))
        curves = [
            _residual_curve(np.clip(predicted, 0, 1), labeled, bins)
            for predicted, labeled in zip(training_predictions.T, training_labels.T, strict=True)
        ]
        centers, spreads = (np.stack(part).astype(np.float32) for part in zip(*curves, strict=True))  # (K, B)
        empty = np.zeros((0, len(centers)), np.float32)
        fitted = cls(centers, spreads, empty, np.zeros(0, np.int32))
        residuals = np.abs(labels - np.clip(predictions, 0, 1))  # (N, K)
        fitted.scores = (residuals / fitted.spread(predictions)).astype(np.float32)
        fitted.groups = number_groups(groups)
        return fitted

    def spread(self, predictions: np.ndarray) -> np.ndarray:
        """The usual absolute residual of predictions (N, K): float64 (N, K)."""
        columns = np.clip(predictions, 0, 1).astype(np.float64).T
        curves = zip(columns, self.centers, self.spreads, strict=True)
        return np.stack([np.interp(column, centers, spreads) for column, centers, spreads in curves], axis=1)

    def factors(self, coverage: float) -> np.ndarray:
        """Half the width of an interval, as a multiple of the usual residual: float64 (K,), infinite for dimensions
        with too few labeled groups."""
        known = ~np.isnan(self.scores)  # (N, K)
        columns = [(self.scores[mask, k], self.groups[mask]) for k, mask in enumerate(known.T)]
        return np.array([group_quantile(scores, groups, coverage) for scores, groups in columns], np.float64)

    def group_counts(self) -> list[int]:
        """Number of labeled groups for each dimension."""
        return [len(np.unique(self.groups[mask])) for mask in (~np.isnan(self.scores)).T]

    def bounds(self, predictions: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of the intervals of predictions (N, K), within [0, 1]: float64 (N, K) each. All of [0,
        1] in dimensions with too few groups."""
        reach = self.factors(coverage) * self.spread(predictions)  # (N, K)
        center = np.clip(predictions, 0, 1).astype(np.float64)
        return np.clip(center - reach, 0, 1), np.clip(center + reach, 0, 1)


def _residual_curve(predictions: np.ndarray, labels: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean prediction and mean absolute residual (B,) of bins of clips with similar predictions (M,)."""
    known = ~np.isnan(labels)
    predictions, labels = predictions[known].astype(np.float64), labels[known].astype(np.float64)
    if len(labels) < bins:
        return np.linspace(0, 1, bins), np.ones(bins)
    residuals = np.abs(labels - predictions)
    parts = np.array_split(np.argsort(predictions, kind="stable"), bins)
    spreads = np.array([residuals[part].mean() for part in parts])
    smallest = max(SMALLEST_SPREAD * residuals.mean(), 1e-4)
    return np.array([predictions[part].mean() for part in parts]), np.maximum(spreads, smallest)


def unbounded_line(intervals: ConformalIntervals, coverage: float, names: Sequence[str]) -> str:
    """A line about dimensions with intervals that cover the whole range, because the model was validated on too few
    groups; "" if there are none."""
    needed, counts = fewest_groups(coverage), intervals.group_counts()
    few = [f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < needed]
    if not few:
        return ""
    which = f"{counts[0]}" if len(few) == len(names) and len(set(counts)) == 1 else ", ".join(few)
    return (
        f"intervals are the whole range: a coverage of {coverage:g} needs {needed} validation groups with labels, the "
        f"model has {which}; ask for less, or train with more people in the validation split"
    )
