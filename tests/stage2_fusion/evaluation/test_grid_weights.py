"""Weights from a grid: the same as those of loops over all weights in steps of 0.05."""

import numpy as np
import pytest

from shared.errors import UserError
from shared.metrics import pcc
from stage2_fusion.evaluation.grid_weights import best_point, learn_grid, simplex_grid
from stage2_fusion.evaluation.stacks import Stack


@pytest.mark.parametrize(("count", "points"), [(2, 21), (3, 231), (4, 1771)])
def test_grid_holds_all_steps_of_a_twentieth_once(count, points):
    grid = simplex_grid(count)
    assert len({tuple(point) for point in grid.tolist()}) == points == len(grid)
    assert grid.min() == 0 and np.allclose(grid.sum(axis=1), 1) and np.allclose(grid * 20, np.round(grid * 20))
    assert np.ptp(grid[0]) <= 0.05 + 1e-12  # the most even first


def test_weights_have_the_highest_pcc_of_all_in_loops():
    rng = np.random.default_rng(0)
    labels = rng.random((60, 3))
    predictions = np.stack([labels + rng.normal(0, noise, labels.shape) for noise in (0.2, 0.4, 1.0)], axis=2)
    labels[5, 0] = np.nan
    learned = learn_grid(Stack(predictions), labels, [])
    for k in range(3):
        tried = {}
        for a in range(21):
            for b in range(21 - a):
                w = np.array([a, b, 20 - a - b]) / 20
                tried[tuple(w)] = pcc(predictions[:, k] @ w, labels[:, k])
        assert pcc(predictions[:, k] @ learned.weights[k], labels[:, k]) == pytest.approx(max(tried.values()))
        np.testing.assert_allclose(learned.weights[k], max(tried, key=tried.get))
    np.testing.assert_allclose(learned(Stack(predictions)), np.clip((predictions * learned.weights).sum(axis=2), 0, 1))


def test_what_teaches_nothing_gives_even_weights():
    labels = np.stack([np.linspace(0, 1, 9), np.full(9, np.nan)], axis=1)
    learned = learn_grid(Stack(np.full((9, 2, 2), 0.3)), labels, [])
    np.testing.assert_allclose(learned.weights, 0.5)
    with pytest.raises(UserError, match="too few labels"):
        learn_grid(Stack(np.ones((9, 1, 2))), np.full((9, 1), 0.5), [])
    with pytest.raises(UserError, match="5 members at most, not 6"):
        learn_grid(Stack(np.ones((9, 2, 6))), labels, [])


def test_the_best_point_is_that_of_the_weighted_predictions():
    """From sums of products as from the weighted sums of all clips, also where predictions do not vary."""
    rng, points = np.random.default_rng(1), simplex_grid(3)
    labels = rng.random(50)
    predictions = np.stack([labels + rng.normal(0, 0.3, 50), np.full(50, 0.4), rng.random(50)], axis=1)
    tried = [pcc(predictions @ point, labels) for point in points]
    assert np.isclose(tried[best_point(predictions, points, labels)], np.nanmax(np.array(tried, float)))
    assert best_point(np.full((50, 3), 0.4), points, labels) == 0  # the most even
    assert best_point(predictions, points, np.full(50, np.nan)) == 0
