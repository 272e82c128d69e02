"""Ridge regression against its normal equations."""

import numpy as np
import pytest

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
