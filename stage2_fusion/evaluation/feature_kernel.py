"""Kernel ridge regression on means and deviations of features: a cheap baseline on the inputs of fusion models.

Like them, it models interactions between modalities; it has no time axis.
"""

import math
from collections.abc import Sequence

import numpy as np

from shared.metrics import score
from stage2_fusion.evaluation.kernel_baseline import PENALTIES, KernelFit, distances, rbf, solve

WIDTHS = (0.25, 0.5, 1.0, 2.0)
"""Widths of the kernels to try, in median distances between training clips."""


def fit_feature_kernel(
    parts: Sequence[Sequence[np.ndarray]], train_labels: np.ndarray, valid_labels: np.ndarray
) -> KernelFit:
    """Fit on the first part (n clips) and its labels (n, K), select on the second (m) and its labels (m, K), predict
    the third (N).

        K(a, b) = prod_m (1 + k_m(a, b)) - 1        k_m(a, b) = exp(-|x_a - x_b|^2 / (2 w D_m))

    the sum of the kernels of all modalities m, of all pairs of them, and so on (the ANOVA kernel, Stitson et al. 1999),
    with standardized statistics x of a modality and their median squared distance D_m between training clips. A
    modality that either clip lacks adds nothing.

    parts: for each modality the statistics of its features, float64 (N, F); a row of NaN for a clip that lacks it.
    """
    names = [str(k) for k in range(train_labels.shape[1])]
    squared = [distances(each) for each in zip(*parts, strict=True)]
    best, best_pcc = None, -math.inf
    for width in WIDTHS:
        kernels = [_anova(of_part, width) for of_part in zip(*squared, strict=True)]
        for penalty, (valid, scored) in zip(PENALTIES, solve(kernels, train_labels), strict=True):
            pcc = score(valid, valid_labels, names, resamples=0).pcc.mean
            if best is None or (pcc is not None and pcc > best_pcc):
                best = KernelFit(scored, {"width": width, "penalty": penalty})
                best_pcc = best_pcc if pcc is None else pcc
    assert best is not None
    return best


def _anova(squared: Sequence[np.ndarray], width: float) -> np.ndarray:
    """The kernel of the squared distances (N, n) of each modality."""
    product = 1 + rbf(squared[0], width)  # (N, n)
    for other in squared[1:]:
        product *= 1 + rbf(other, width)
    return product - 1
