"""Logistic regression on the quality signals of a clip: the cheap alternative to learned weights for damage
detection."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stage2_fusion.data.quality_samples import QualitySample
from stage2_fusion.evaluation.damage_detection import ABSENT

PENALTY = 1.0
"""Penalty on the squared weights of standardized statistics, scikit-learn's default."""
STEPS = 50
"""Most Newton steps; fewer than ten converge."""


@dataclass(frozen=True)
class SignalRegression:
    """P(damaged) = sigmoid(statistics @ slope + offset)."""

    slope: np.ndarray
    """(4 Q,) on the scale of the statistics."""
    offset: float

    @classmethod
    def fit(
        cls, samples: Sequence[QualitySample], modality: str, unmet: Sequence[str] = ()
    ) -> "SignalRegression | None":
        """Fit to undamaged clips and to damaged views of a modality, without the kinds `unmet`. None if either is
        missing."""
        rows, damaged = [], []
        for sample in samples:
            kind, quality = sample.damage[modality], sample.quality[modality]
            if len(quality) and kind not in (*unmet, *ABSENT) and (kind or not sample.view):
                rows.append(signal_statistics(quality))
                damaged.append(bool(kind))
        if not any(damaged) or all(damaged):
            return None
        x, y = np.array(rows), np.array(damaged, np.float64)  # (N, 4 Q), (N,)
        mean, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-6)
        weights = logistic_regression((x - mean) / scale, y, PENALTY)  # (4 Q + 1,)
        slope = weights[:-1] / scale
        return cls(slope, float(weights[-1] - mean @ slope))

    def score(self, quality: np.ndarray) -> float:
        """Log odds of damage to a clip with signals (T, Q)."""
        return float(signal_statistics(quality) @ self.slope + self.offset)


def signal_statistics(quality: np.ndarray) -> np.ndarray:
    """Mean, minimum, maximum and standard deviation of signals (T, Q) over the steps: float64 (4 Q,)."""
    quality = np.asarray(quality, np.float64)
    return np.concatenate([quality.mean(axis=0), quality.min(axis=0), quality.max(axis=0), quality.std(axis=0)])


def logistic_regression(x: np.ndarray, y: np.ndarray, penalty: float) -> np.ndarray:
    """Weights (F + 1,), the last one of the offset, by Newton's method (iteratively reweighted least squares):

        minimize  - sum_i log p(y_i | x_i) + penalty / 2 |w|^2,  the offset free

    x (N, F) standardized, y (N,) of 0 and 1.
    """
    x = np.column_stack([x, np.ones(len(x))])  # (N, F + 1)
    penalties = np.append(np.full(x.shape[1] - 1, penalty), 1e-9)
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        p = 1 / (1 + np.exp(-np.clip(x @ weights, -50, 50)))  # (N,)
        gradient = x.T @ (p - y) + penalties * weights
        curvature = (x.T * (p * (1 - p))) @ x + np.diag(penalties)
        step = np.linalg.solve(curvature, gradient)
        weights -= step
        if np.abs(step).max() < 1e-8:
            break
    return weights
