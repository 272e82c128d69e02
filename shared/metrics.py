"""Agreement of predictions with labels, damage detection, and retrieval. NumPy in, plain floats out, all in float64."""

import numpy as np

CONSTANT = 1e-6
"""A column whose spread is below this share of its largest value is constant: float32 rounding, not information."""


def is_constant(values: np.ndarray) -> bool:
    """Whether `values` (N,) hold no variation beyond float32 rounding."""
    values = np.asarray(values, dtype=np.float64)
    return values.size < 2 or float(np.ptp(values)) <= CONSTANT * float(np.abs(values).max())


def _labelled(predictions, labels) -> tuple[np.ndarray, np.ndarray]:
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predictions.shape != labels.shape:
        raise ValueError(f"predictions {predictions.shape} and labels {labels.shape} differ in shape")
    keep = ~np.isnan(labels)
    return predictions[keep], labels[keep]


def pcc(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Pearson's correlation of two (N,) arrays over the rows whose label is not NaN; 0 when either is constant, NaN
    when no row is labelled."""
    x, y = _labelled(predictions, labels)
    if not x.size:
        return float("nan")
    if is_constant(x) or is_constant(y):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def ccc(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Concordance correlation (Lin 1989) with population variances; 0 when either side is constant, NaN when no row is
    labelled."""
    x, y = _labelled(predictions, labels)
    if not x.size:
        return float("nan")
    if is_constant(x) or is_constant(y):
        return 0.0
    return float(2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def mae(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean absolute error over the rows whose label is not NaN; NaN when there are none."""
    x, y = _labelled(predictions, labels)
    return float(np.abs(x - y).mean()) if x.size else float("nan")


def score(
    predictions: np.ndarray,
    labels: np.ndarray,
    names: tuple[str, ...] | list[str],
    groups: list[str] | None = None,
    bootstrap: int = 1000,
    seed: int = 0,
) -> dict:
    """Every score of one split, computed over all of its rows at once.

    predictions (N, K), labels (N, K) with NaN = not labelled, names: the K dimensions, groups: the N groups (such as
    subjects) that the bootstrap draws with replacement; without them every row is a group of its own.
    Returns {"n", "groups", "pcc", "pcc_nonzero", "ccc", "mae", "constant", "constant_labels"}. "pcc" and "pcc_nonzero"
    (rows with at least one label above zero) hold "mean" (over the dimensions that are labelled at all),
    "per_dimension", "interval" (95 %, of the mean), "interval_per_dimension" and "n". "constant" lists the dimensions
    whose predictions do not vary, "constant_labels" those whose labels do not; both count 0.
    """
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predictions.shape != labels.shape or predictions.ndim != 2 or predictions.shape[1] != len(names):
        raise ValueError(f"predictions {predictions.shape}, labels {labels.shape} and {len(names)} names do not match")
    groups = np.asarray(groups if groups is not None else np.arange(len(labels)))
    columns = range(len(names))
    intensity = (np.nan_to_num(labels) > 0).any(axis=1)

    def per_dimension(measure, rows=slice(None)) -> dict[str, float]:
        return {names[k]: measure(predictions[rows, k], labels[rows, k]) for k in columns}

    def correlation(rows) -> dict:
        values = per_dimension(pcc, rows)
        known = [k for k in columns if not np.isnan(labels[rows][:, k]).all()]
        draws = bootstrap_pcc(predictions[rows][:, known], labels[rows][:, known], groups[rows], bootstrap, seed)
        return {
            **_with_mean(values),
            "interval": interval(mean_over_dimensions(draws)),
            "interval_per_dimension": dict.fromkeys(names)
            | {names[k]: interval(d) for k, d in zip(known, draws.T, strict=True)},
            "n": len(labels[rows]),
        }

    def constant(values) -> list[str]:
        known = ~np.isnan(labels)  # (N, K)
        return [names[k] for k in columns if known[:, k].any() and is_constant(values[known[:, k], k])]

    return {
        "n": len(labels),
        "groups": len(np.unique(groups)),
        "pcc": correlation(slice(None)),
        "pcc_nonzero": correlation(intensity),
        "ccc": _with_mean(per_dimension(ccc)),
        "mae": _with_mean(per_dimension(mae)),
        "constant": constant(predictions),
        "constant_labels": constant(labels),
    }


def _with_mean(values: dict[str, float]) -> dict:
    known = [value for value in values.values() if not np.isnan(value)]
    return {"mean": float(np.mean(known)) if known else None, "per_dimension": _without_nan(values)}


def _without_nan(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else value for name, value in values.items()}  # JSON has no NaN


def interval(draws: np.ndarray) -> list[float] | None:
    """The middle 95 % of bootstrap draws (R,) that are not NaN; None without any."""
    draws = draws[~np.isnan(draws)]
    return [float(value) for value in np.percentile(draws, [2.5, 97.5])] if draws.size else None


def mean_over_dimensions(draws: np.ndarray) -> np.ndarray:
    """(R, K) -> (R,): the mean of what is not NaN; NaN where nothing is."""
    known = ~np.isnan(draws)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, draws, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def bootstrap_pcc(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> np.ndarray:
    """PCC of `resamples` bootstrap samples: (resamples, K) float64.

    Each sample draws as many groups as there are, with replacement, and takes all rows of each drawn group (the cluster
    bootstrap: rows of one subject are not independent). PCC needs only six sums per group and dimension, so all samples
    are one matrix product. Constant predictions count 0. A sample in which by chance no label of a dimension varies, as
    happens to rare dimensions in few groups, says nothing about it: NaN, unless its labels never vary, which counts 0.
    """
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if resamples == 0 or not len(labels):
        return np.zeros((0, labels.shape[1]))
    names, group = np.unique(groups, return_inverse=True)
    known = ~np.isnan(labels)  # (N, K)
    count = np.maximum(known.sum(axis=0), 1)
    x, y = np.where(known, predictions, 0.0), np.where(known, labels, 0.0)
    x = np.where(known, x - x.sum(axis=0) / count, 0.0)  # centred, so that the sums lose no digits
    y = np.where(known, y - y.sum(axis=0) / count, 0.0)
    sums = np.zeros((len(names), 6, labels.shape[1]))  # (G, 6, K)
    np.add.at(sums, group, np.stack([known, x, y, x * x, y * y, x * y], axis=1))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    n, sx, sy, sxx, syy, sxy = np.einsum("rg,gsk->srk", drawn.astype(np.float64), sums, optimize=True)  # (R, K) each
    n = np.maximum(n, 1)
    vx, vy = sxx - sx * sx / n, syy - sy * sy / n
    silent = ~(vy > 1e-12 * syy)  # (R, K)
    varied = (vx > 1e-12 * sxx) & ~silent
    found = np.where(varied, (sxy - sx * sy / n) / np.sqrt(np.where(varied, vx * vy, 1.0)), 0.0)
    return np.where(silent & ~silent.all(axis=0), np.nan, found)


def roc_auc(scores: np.ndarray, positive: np.ndarray, strata: np.ndarray | None = None) -> float:
    """The chance that a positive scores above a negative, ties counting half; NaN when there is no such pair.

    scores (N,) float, positive (N,) bool; strata (N,): only rows of the same stratum are compared.
    """
    from scipy.stats import rankdata

    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    strata = np.zeros(len(scores)) if strata is None else np.asarray(strata)
    won, pairs = 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        n, m = int(positive[inside].sum()), int((~positive[inside]).sum())
        if n and m:
            won += rankdata(scores[inside])[positive[inside]].sum() - n * (n + 1) / 2
            pairs += n * m
    return float(won / pairs) if pairs else float("nan")


def recall_at(similarity: np.ndarray, row_ids: np.ndarray, column_ids: np.ndarray, k: int) -> float:
    """The share of rows that find a column of the same id among their k most similar; 0 when there is nothing to find.

    similarity (N, M), row_ids N, column_ids M: equal ids (equal texts, say) all count as hits, so a repeated text is no
    error. A wrong column as similar as the best right one is ranked before it: a model that gives every pair the same
    similarity earns nothing. Rows without any right column are left out; a row of NaN is a miss.
    """
    similarity = np.asarray(similarity)
    codes = {value: code for code, value in enumerate(dict.fromkeys([*row_ids, *column_ids]))}
    rows, columns = np.array([codes[i] for i in row_ids]), np.array([codes[i] for i in column_ids])
    hits = possible = 0
    for start in range(0, len(rows), 1024):  # a block at a time: the comparisons are as large as the matrix
        block = similarity[start : start + 1024]
        right = rows[start : start + 1024, None] == columns[None]  # (n, M)
        best = np.where(right & ~np.isnan(block), block, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)  # (n, 1)
        rank = (~right & ~(block < best)).sum(axis=1)  # (n,) wrong columns before the best right one
        findable = right.any(axis=1) & (best[:, 0] > -np.inf)
        hits += int(((rank < k) & findable).sum())
        possible += int(right.any(axis=1).sum())
    return hits / possible if possible else 0.0
