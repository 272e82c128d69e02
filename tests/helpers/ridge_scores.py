"""What a linear model learns from features of clips, to tell whether a corpus shows or hides its labels."""

from collections.abc import Sequence

import numpy as np

from shared.metrics import pcc
from shared.ridge import PENALTIES, ridge_predict


def ridge_pcc(features: np.ndarray, labels: np.ndarray, splits: Sequence[str]) -> np.ndarray:
    """PCC (K,) on test of ridge regression from features (N, F) to labels (N, K), fitted on train with the penalty that
    is best on valid. splits: N of train, valid and test; NaN where the labels allow no PCC."""
    train, valid, test = (np.flatnonzero(np.asarray(splits) == name) for name in ("train", "valid", "test"))
    center, spread = features[train].mean(axis=0), features[train].std(axis=0)
    x = np.where(spread > 1e-6, (features - center) / np.maximum(spread, 1e-6), 0)  # (N, F)
    candidates = [ridge_predict(x[train], labels[train], x, penalty) for penalty in PENALTIES]  # (N, K) each
    best = max(candidates, key=lambda predictions: _each(predictions[valid], labels[valid]).mean())  # (N, K)
    return _each(best[test], labels[test])


def _each(predictions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.array([pcc(x, y) for x, y in zip(predictions.T, labels.T, strict=True)])  # (K,)
