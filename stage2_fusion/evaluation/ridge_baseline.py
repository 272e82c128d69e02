"""Ridge regression on statistics of each modality's features: the baseline that a fusion model should beat."""

from dataclasses import dataclass

import numpy as np

from shared.metrics import score
from shared.ridge import PENALTIES, ridge_predict
from stage2_fusion.data.features import FeatureSample


@dataclass
class RidgeFit:
    predictions: np.ndarray
    """float64 (N, K) in [0, 1], of the scored clips."""
    penalty: float
    """The one with the best mean PCC on the validation clips."""


def fit_ridge(
    train: np.ndarray, train_labels: np.ndarray, valid: np.ndarray, valid_labels: np.ndarray, scored: np.ndarray
) -> RidgeFit:
    """Fit on train (n, F) and its labels (n, K), choose the penalty on valid (m, F), predict scored (N, F)."""
    targets = train_labels.astype(np.float64)
    names = [str(k) for k in range(targets.shape[1])]

    def predict(features: np.ndarray, penalty: float) -> np.ndarray:
        return np.clip(ridge_predict(train, targets, features, penalty), 0, 1)  # (N, K)

    def valid_pcc(penalty: float) -> float:
        mean = score(predict(valid, penalty), valid_labels, names, resamples=0).pcc.mean
        return float("-inf") if mean is None else mean

    penalty = max(PENALTIES, key=valid_pcc)
    return RidgeFit(predict(scored, penalty), penalty)


def clip_statistics(samples: list[FeatureSample], modalities: list[str]) -> np.ndarray:
    """For each modality the mean and standard deviation of its sequence over time, its embedding, and whether it is
    present: float64 (N, F). All but the last are NaN if it is absent."""
    rows = []
    for sample in samples:
        row: list[np.ndarray] = []
        for name in modalities:
            sequence = np.asarray(sample.modality(name).sequence, dtype=np.float64)  # (T, C)
            embedding = np.asarray(sample.modality(name).pooled, dtype=np.float64)  # (D,)
            present = len(sequence) > 0
            values = np.full(2 * sequence.shape[1] + len(embedding), np.nan)
            if present:
                values = np.concatenate([sequence.mean(0), sequence.std(0), embedding])
            row += [values, np.array([float(present)])]
        rows.append(np.concatenate(row))
    return np.stack(rows)


def standardize(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Standardize each part (N, F) with the mean and standard deviation of the first part (n, F); missing values and
    columns that never vary become 0."""
    known = ~np.isnan(parts[0])  # (n, F)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, parts[0], 0).sum(axis=0) / count  # (F,)
    spread = np.sqrt((np.where(known, parts[0] - mean, 0) ** 2).sum(axis=0) / count)  # (F,)
    least = 1e-6 * np.clip(np.abs(mean), 1e-6, 1)  # (F,), relative to the column: features of other tools may be tiny
    scale = np.where(spread > least, 1 / np.maximum(spread, least), 0)
    return [np.nan_to_num((part - mean) * scale) for part in parts]
