"""Multinomial logistic regression on statistics of features, where labels are classes."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from shared.errors import UserError
from shared.training import available_memory
from stage2_fusion.evaluation import class_baseline
from stage2_fusion.evaluation.class_baseline import fit_classes
from stage2_fusion.evaluation.ridge_baseline import fit_ridge

KINDS = np.array([[0, 0], [0.5, 0], [1, 0], [0, 1]])


def clips(count: int, seed: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) around a center of each kind of label, and labels (N, 2)."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % len(KINDS)
    centers = 1.5 * np.random.default_rng(9).normal(size=(len(KINDS), width))
    return centers[kinds] + rng.normal(size=(count, width)), KINDS[kinds].astype(np.float32)


@pytest.mark.parametrize("width", [3, 40])
def test_predictions_are_expected_labels_at_the_minimum_of_the_loss(width, monkeypatch):
    """The gradient of the stated loss vanishes there, with fewer and with more features than clips."""
    monkeypatch.setattr(class_baseline, "PENALTIES", (2.0,))
    (train, labels), (valid, valid_labels), (scored, _) = (clips(n, n, width) for n in (24, 12, 8))
    labels[5, 1] = np.nan  # takes no part
    found = []
    real_fit = class_baseline._fit
    monkeypatch.setattr(class_baseline, "_fit", lambda *given: found.append(real_fit(*given)) or found[-1])
    fit = fit_classes(train, labels, valid, valid_labels, scored)
    assert fit.options == {"penalty": 2.0, "classes": 4}
    known = np.arange(24) != 5
    axes = np.linalg.svd(train[known], full_matrices=False)[2]
    weights, offset = axes.T @ found[0][:-1], found[0][-1]  # (F, C), (C,)
    order = [int(np.flatnonzero((np.unique(KINDS, axis=0) == KINDS[k]).all(axis=1))[0]) for k in range(4)]
    classes = np.array(order)[np.arange(24) % 4][known]

    def loss(weights, offset):
        log_p = log_softmax(train[known] @ weights + offset, axis=1)
        return -log_p[np.arange(23), classes].sum() + (weights**2).sum()

    rng = np.random.default_rng(1)
    for _ in range(20):
        step, shift = 1e-4 * rng.normal(size=weights.shape), 1e-4 * rng.normal(size=4)
        slope = (loss(weights + step, offset + shift) - loss(weights - step, offset - shift)) / 2e-4
        assert abs(slope) < 0.02
    expected = softmax(scored @ weights + offset, axis=1) @ np.unique(KINDS, axis=0)
    np.testing.assert_allclose(fit.predictions, expected, atol=1e-9)


def test_classes_in_one_direction_are_told_apart_where_ridge_cannot():
    """The second kind lies between the two others: no plane rises towards it."""
    rng = np.random.default_rng(0)
    kinds = np.arange(90) % 3
    x = np.stack([3.0 * kinds + 0.5 * rng.normal(size=90), rng.normal(size=90)], axis=1)
    labels = np.eye(3, dtype=np.float32)[kinds]
    parts = x[:40], labels[:40], x[40:60], labels[40:60], x[60:]
    reached = [np.corrcoef(fit(*parts).predictions[:, 1], labels[60:, 1])[0, 1] for fit in (fit_classes, fit_ridge)]
    assert reached[0] > 0.8 and abs(reached[1]) < 0.5


def test_ratings_are_no_classes():
    x, _ = clips(20, 0, 3)
    ratings = np.random.default_rng(0).uniform(size=(20, 2))
    with pytest.raises(UserError, match=r"20 training clips have 20 different labels.*take --kind kernel"):
        fit_classes(x, ratings, x, ratings, x)


def test_classes_that_memory_cannot_hold_are_refused(monkeypatch):
    """Of 40 clips in 4 classes: 8 matrices of 160 numbers of 8 bytes are 10,240."""
    x, labels = np.random.default_rng(0).normal(size=(40, 2)), (np.arange(40) % 4 / 4)[:, None]
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 10_240)
    fit_classes(x, labels, x, labels, x[:8])
    monkeypatch.setattr(available_memory, "available_bytes", lambda: 10_239)
    with pytest.raises(UserError, match=r"--kind logistic: 40 clips of 4 classes take .* take --kind ridge$"):
        fit_classes(x, labels, x, labels, x[:8])
    monkeypatch.setattr(available_memory, "available_bytes", lambda: None)
    fit_classes(x, labels, x, labels, x[:8])
