"""Weights of systems from a grid, as in the source of statistics_mlp (arXiv 2503.10399).

The source tries all weights of three modalities in steps of 0.05 that sum to 1, and keeps the best by PCC for each
dimension.
"""

from itertools import combinations

import numpy as np

from shared.errors import UserError
from shared.metrics import scorable
from stage2_fusion.evaluation.stacks import Stack, WeightedSum

STEPS = 20
"""Steps of 0.05."""
MOST_SYSTEMS = 5
"""With more, the grid would have more than 10,626 points."""


def learn_grid(stack: Stack, labels: np.ndarray, groups: list[str]) -> WeightedSum:
    """For each dimension, the weights of the grid with the highest PCC; the most even on ties. UserError when no
    dimension has labels that allow a PCC, and for more systems than a grid can hold."""
    del groups  # the weights have few degrees of freedom, and nothing is selected on held-out groups
    count = stack.predictions.shape[2]
    if count > MOST_SYSTEMS:
        raise UserError(f"--method grid weighs {MOST_SYSTEMS} members at most, not {count}; take --method ridge")
    if not scorable(labels):
        raise UserError(
            "the clips that decide the weights have too few labels, or all equal ones; take --method average"
        )
    points = simplex_grid(count)  # (G, M)
    best = [points[best_point(stack.predictions[:, k], points, labels[:, k])] for k in range(labels.shape[1])]
    return WeightedSum(np.stack(best), np.zeros(labels.shape[1]))


def simplex_grid(count: int) -> np.ndarray:
    """All weights of `count` systems in steps of 1 / STEPS that sum to 1, the most even first: (G, count)."""
    bars = combinations(range(STEPS + count - 1), count - 1)
    steps = [np.diff([-1, *places, STEPS + count - 1]) - 1 for places in bars]
    return np.array(sorted(steps, key=lambda point: (int((point**2).sum()), *point))) / STEPS


def best_point(predictions: np.ndarray, points: np.ndarray, labels: np.ndarray) -> int:
    """The first point (G, M) with the highest PCC between its weighted sum of predictions (N, M) and the labels (N,),
    NaN = not labeled; a constant sum counts as PCC 0. Computed from sums of products, since N x G numbers may not fit
    in memory."""
    known = ~np.isnan(labels)
    if not known.any():
        return 0
    x, y = predictions[known], labels[known]
    x, y = x - x.mean(axis=0), y - y.mean()
    variance = np.einsum("gm,mj,gj->g", points, x.T @ x, points).clip(min=0)  # (G,)
    scale = np.sqrt(variance * (y**2).sum())  # (G,)
    pcc = np.divide(points @ (x.T @ y), scale, out=np.zeros(len(scale)), where=scale > 1e-12)  # (G,)
    return int(np.argmax(np.round(pcc, 12)))
