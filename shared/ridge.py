"""Ridge regression of several targets, some of whose values may be unknown."""

import numpy as np

STRENGTHS = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""Penalties worth trying on standardised features; the validation split decides."""


def predict(train: np.ndarray, targets: np.ndarray, features: np.ndarray, strength: float) -> np.ndarray:
    """Predictions (N, K) for features (N, F) of the ridge fit on train (n, F) and targets (n, K).

    Rows whose target is NaN take no part in that target. The offset is free of the penalty; it is the targets' mean
    where the features are centred. A target without any value is predicted as 0.
    """
    predictions = np.zeros((len(features), targets.shape[1]))  # (N, K)
    known = ~np.isnan(targets)  # (n, K)
    patterns = np.unique(known, axis=1).T  # targets known in the same rows share one solution
    for pattern in patterns[patterns.any(axis=1)]:
        columns = (known == pattern[:, None]).all(axis=0)
        x, y = train[pattern], targets[pattern][:, columns]
        centre, offset = x.mean(axis=0), y.mean(axis=0)
        x, y = x - centre, y - offset
        if x.shape[0] < x.shape[1]:  # the smaller of the two systems, the dual one
            weights = x.T @ np.linalg.solve(x @ x.T + strength * np.eye(len(x)), y)  # (F, k)
        else:
            weights = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ y)  # (F, k)
        predictions[:, columns] = (features - centre) @ weights + offset
    return predictions
