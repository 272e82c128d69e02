"""Ridge regression against its normal equations, and on clips that it has not seen."""

import numpy as np
import pytest
from helpers.ridge_scores import ridge_pcc

from shared.ridge import ridge_predict


@pytest.mark.parametrize("width", [3, 30])
def test_prediction_solves_normal_equations(width):
    rng = np.random.default_rng(0)
    x, y, new = rng.random((12, width)), rng.random((12, 3)), rng.random((5, width))
    y[2, 1], y[:, 2] = np.nan, np.nan
    predictions = ridge_predict(x, y, new, 0.7)
    for k, rows in ((0, np.arange(12)), (1, np.delete(np.arange(12), 2))):
        design = np.column_stack([x[rows], np.ones(len(rows))])  # the offset is an unpenalized last column
        cost = 0.7 * np.diag([*np.ones(width), 0])
        weights = np.linalg.solve(design.T @ design + cost, design.T @ y[rows, k])
        np.testing.assert_allclose(predictions[:, k], np.column_stack([new, np.ones(5)]) @ weights)
    assert not predictions[:, 2].any()


def test_ridge_learns_a_linear_target_and_not_noise():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((300, 5))
    labels = np.stack([features[:, 0] - features[:, 1], rng.standard_normal(300)], axis=1)
    linear, noise = ridge_pcc(features, labels, ["train"] * 200 + ["valid"] * 50 + ["test"] * 50)
    assert linear > 0.98 and abs(noise) < 0.35
