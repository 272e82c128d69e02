"""Multinomial logistic regression on means and deviations of features: the cheap baseline for a few distinct labels.

Mutually exclusive dimensions, such as acted emotions at two intensities, are classes. A regression per dimension does
not know that; a network with a sigmoid per dimension learns it in part.
"""

from dataclasses import dataclass

import numpy as np

from shared.errors import UserError
from shared.metrics import score
from shared.training.available_memory import check_memory

PENALTIES = (1000.0, 300.0, 100.0, 30.0, 10.0, 3.0)
"""Penalties to try on standardized features, the strongest first: each fit starts from the previous one."""
MIN_CLIPS = 2
"""Fewest training clips per class, on average: ratings that differ from clip to clip are not classes."""
MAX_STEPS = 300
"""Most steps of L-BFGS per penalty."""
MATRICES = 8
"""Matrices of clips and classes, float64, at the peak of a fit, as measured at 4,000 clips."""


@dataclass
class ClassFit:
    """The predictions of the baseline."""

    predictions: np.ndarray
    """float64 (N, K) in the range of the training labels, of the scored clips."""
    options: dict[str, float]
    """penalty: the one with the best mean PCC on the validation clips; classes: their number."""


def fit_classes(
    train: np.ndarray, train_labels: np.ndarray, valid: np.ndarray, valid_labels: np.ndarray, scored: np.ndarray
) -> ClassFit:
    """Fit on train (n, F) and its labels (n, K), choose the penalty on valid (m, F), predict scored (N, F).

    Each distinct row of training labels is a class; a prediction is the expected label:

        minimize  -sum_i log p(c_i | x_i) + penalty / 2 |W|^2        p = softmax(X W + b)
        y(x) = sum_c p(c | x) y_c

    Clips that lack a label in any dimension are left out. UserError when nearly every clip has its own labels, or when
    memory cannot hold so many clips and classes.
    """
    known = ~np.isnan(train_labels).any(axis=1)  # (n,)
    targets, index = np.unique(train_labels[known].astype(np.float64), axis=0, return_inverse=True)  # (C, K)
    if MIN_CLIPS * len(targets) > known.sum():
        raise UserError(
            f"--kind logistic: {known.sum():,} training clips have {len(targets):,} different labels, and these are no "
            "classes; take --kind kernel"
        )
    clips, classes = max(len(index), len(valid), len(scored)), len(targets)
    check_memory(
        8 * MATRICES * clips * classes,
        f"--kind logistic: {clips:,} clips of {classes:,} classes",
        lambda _: "fit on fewer with --max_train_clips, or take --kind ridge",
    )
    names = [str(k) for k in range(targets.shape[1])]
    _, _, axes = np.linalg.svd(train[known], full_matrices=False)  # (R, F); other directions have weight 0
    x, others = train[known] @ axes.T, [part @ axes.T for part in (valid, scored)]  # (n, R), (m, R), (N, R)
    weights = np.zeros((x.shape[1] + 1, len(targets)))  # (R + 1, C), the last row is b
    best: tuple[float, ClassFit] | None = None
    for penalty in PENALTIES:
        weights = _fit(x, index.ravel(), weights, penalty)
        of_valid, of_scored = (_probabilities(part, weights) @ targets for part in others)  # (m, K), (N, K)
        pcc = score(of_valid, valid_labels, names, resamples=0).pcc.mean
        reached = float("-inf") if pcc is None else pcc
        if best is None or reached > best[0]:
            best = reached, ClassFit(of_scored, {"penalty": penalty, "classes": len(targets)})
    assert best is not None
    return best[1]


def _probabilities(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(N, R) and (R + 1, C) to (N, C)."""
    from scipy.special import softmax

    return softmax(x @ weights[:-1] + weights[-1], axis=1)


def _fit(x: np.ndarray, index: np.ndarray, start: np.ndarray, penalty: float) -> np.ndarray:
    """x (n, R), classes (n,), initial weights (R + 1, C) -> weights (R + 1, C)."""
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    one_hot = np.eye(start.shape[1])[index]  # (n, C)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(start.shape)
        logits = x @ weights[:-1] + weights[-1]  # (n, C)
        log_p = logits - logsumexp(logits, axis=1, keepdims=True)  # (n, C)
        error = np.exp(log_p) - one_hot  # (n, C)
        gradient = np.concatenate([x.T @ error + penalty * weights[:-1], error.sum(axis=0, keepdims=True)])
        value = -(log_p * one_hot).sum() + penalty / 2 * (weights[:-1] ** 2).sum()
        return float(value), gradient.ravel()

    found = minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    return found.x.reshape(start.shape)
