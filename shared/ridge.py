"""Ridge regression for several targets, with missing values."""

import numpy as np

PENALTIES = (1e0, 1e1, 1e2, 1e3, 1e4, 1e5)
"""Penalties to try on standardized features; the validation split chooses."""


def ridge_predict(train_features: np.ndarray, targets: np.ndarray, features: np.ndarray, penalty: float) -> np.ndarray:
    """Fit ridge regression on train_features (n, F) and targets (n, K), predict features (N, F): float64 (N, K).

        minimize  |y - b - X w|^2 + penalty |w|^2        (Hoerl and Kennard 1970, Technometrics 12, 55-67)

    The intercept b is not penalized. A row with a NaN target is left out for that target; a target without any value is
    predicted as 0.
    """
    predictions = np.zeros((len(features), targets.shape[1]))  # (N, K)
    known = ~np.isnan(targets)  # (n, K)
    patterns = np.unique(known, axis=1).T  # targets known in the same rows share one solution
    for rows in patterns[patterns.any(axis=1)]:
        columns = (known == rows[:, None]).all(axis=0)
        x, y = train_features[rows], targets[rows][:, columns]
        center, offset = x.mean(axis=0), y.mean(axis=0)
        x, y = x - center, y - offset
        if x.shape[0] < x.shape[1]:  # the dual system is the smaller one
            weights = x.T @ np.linalg.solve(x @ x.T + penalty * np.eye(len(x)), y)  # (F, k)
        else:
            weights = np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ y)  # (F, k)
        predictions[:, columns] = (features - center) @ weights + offset
    return predictions
