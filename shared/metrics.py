"""Scores: PCC, CCC, MAE with bootstrap intervals, ROC AUC, recall at k. NumPy in, plain floats out, all in float64.

Every score is computed over all rows of a split at once, never averaged over batches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from shared.text import counted

CONSTANT_UNITS = 2
"""Values that differ by at most this number of units in the last place are equal up to rounding: constant."""
AMBIGUOUS = 1e-9
"""If the variance of a bootstrap sample is below this fraction of its mean square, sums of squares lose the digits that
tell a constant from a small signal: such samples are scored value by value."""

MAX_WEIGHTS = 2**22
"""Most row weights of bootstrap samples in memory at once."""

FEW_GROUPS = 20
"""With fewer groups, a bootstrap interval is too narrow: with simulated groups of 6 rows and a group effect, 95 %
intervals cover 94 % at 20 groups, 87 % at 10, 80 % at 4."""

MIN_ROWS = 3
"""Least labeled rows for a correlation: with two rows, it is 1 or -1 for any predictions."""


@dataclass(frozen=True)
class DimensionScores:
    """One score for K dimensions. None marks a dimension with labels that do not allow it (`why_no_pcc`); JSON has no
    NaN."""

    mean: float | None
    """Mean over the dimensions with the score; None without any."""
    per_dimension: dict[str, float | None]

    @classmethod
    def from_values(cls, values: dict[str, float]) -> "DimensionScores":
        """From scores where NaN marks a dimension without one."""
        return cls(_mean(values), {name: None if np.isnan(value) else value for name, value in values.items()})


@dataclass(frozen=True)
class CorrelationScores(DimensionScores):
    """PCC with 95 % bootstrap intervals, each [low, high], or None without a PCC, without resamples, or with a single
    group, which is the same in every resample."""

    interval: list[float] | None
    """Of the mean over dimensions."""
    interval_per_dimension: dict[str, list[float] | None]
    n: int
    """Number of scored rows."""


@dataclass(frozen=True)
class CrossedIntervals:
    """95 % intervals of PCC that respect two kinds of groups at once, such as people and the videos that they watched;
    see `bootstrap_pcc`."""

    groups: int
    """Distinct groups of the second kind."""
    interval: list[float] | None
    """Of the mean over dimensions."""
    interval_per_dimension: dict[str, list[float] | None]


@dataclass(frozen=True)
class Scores:
    """All scores of one split. `dataclasses.asdict` gives the content of metrics.json; `from_json` reads it back."""

    n: int
    """Rows."""
    groups: int
    """Distinct groups in the bootstrap."""
    pcc: CorrelationScores
    pcc_nonzero: CorrelationScores
    """Over the rows with at least one label above zero, the lowest value of its range."""
    ccc: DimensionScores
    mae: DimensionScores
    constant: list[str]
    """Dimensions with constant predictions; their correlations count as 0."""
    constant_labels: list[str]
    """Dimensions with constant labels: they have no correlation."""
    crossed: CrossedIntervals | None = None
    """None without groups of a second kind."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Scores":
        """The scores among the keys of a metrics.json. KeyError or TypeError if one is missing."""
        return cls(
            n=values["n"],
            groups=values["groups"],
            pcc=CorrelationScores(**values["pcc"]),
            pcc_nonzero=CorrelationScores(**values["pcc_nonzero"]),
            ccc=DimensionScores(**values["ccc"]),
            mae=DimensionScores(**values["mae"]),
            constant=values["constant"],
            constant_labels=values["constant_labels"],
            crossed=CrossedIntervals(**crossed) if (crossed := values.get("crossed")) else None,
        )


def is_constant(values: ArrayLike) -> bool:
    """Whether `values` (N,) vary no more than rounding errors: by CONSTANT_UNITS units in the last place of the
    largest, in the precision in which they are stored. Values that are exact in float32, such as network outputs, count
    as stored in float32, whatever their type. Scores, intervals, remarks and the choice of epochs all use this rule: a
    signal that is small relative to its mean is not constant.
    """
    values = np.asarray(values)
    return values.size < 2 or float(np.ptp(values.astype(np.float64))) <= CONSTANT_UNITS * _last_place(values)


def _last_place(values: np.ndarray) -> float:
    """The unit in the last place of the largest of values (N,)."""
    exact = values.astype(np.float64)
    with np.errstate(over="ignore"):
        in_float32 = exact.astype(np.float32)
    stored = in_float32 if np.array_equal(in_float32, exact, equal_nan=True) else exact
    return float(np.spacing(np.abs(stored).max()))


def why_no_pcc(labels: ArrayLike) -> str:
    """Why labels (N,), NaN = not labeled, allow no correlation; "" if they do."""
    known = np.asarray(labels, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not known.size:
        return "not labeled"
    if known.size < MIN_ROWS:
        return f"{counted(known.size, 'labeled clip')}, where a correlation needs {MIN_ROWS}"
    return f"all labels are {known[0]:.4g}" if is_constant(known) else ""


def why_not_learned(labels: ArrayLike) -> str:
    """Why a model can only learn a constant from training labels (N,), NaN = not labeled; "" if it can learn."""
    known = np.asarray(labels, dtype=np.float64)
    known = known[~np.isnan(known)]
    if known.size < 2:
        return "1 labeled clip" if known.size else "not labeled"
    return f"all labels are {known[0]:.4g}" if is_constant(known) else ""


def pcc(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Pearson correlation coefficient of predictions x (N,) and labels y (N,), the score of the EMI challenge:

        PCC = sum((x - mean x)(y - mean y)) / sqrt(sum((x - mean x)^2) sum((y - mean y)^2))

    Rows with a NaN label are left out. 0 if x is constant; NaN if the labels allow no correlation: fewer than
    MIN_ROWS rows, or all labels equal.
    """
    x, y = _labeled_rows(predictions, labels)
    if why_no_pcc(y):
        return float("nan")
    if is_constant(x):
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1, 1))


def ccc(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Concordance correlation coefficient (Lin 1989, Biometrics 45, 255-268) of x (N,) and y (N,):

        CCC = 2 cov(x, y) / (var x + var y + (mean x - mean y)^2)

    with population (1/N) moments. Unlike PCC it penalizes a wrong scale or offset. NaN and constants as in `pcc`.
    """
    x, y = _labeled_rows(predictions, labels)
    if why_no_pcc(y):
        return float("nan")
    if is_constant(x):
        return 0.0
    return float(2 * np.mean((x - x.mean()) * (y - y.mean())) / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def mae(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean absolute error, mean |x - y|, over the labeled rows (not NaN); NaN if there are none."""
    x, y = _labeled_rows(predictions, labels)
    return float(np.abs(x - y).mean()) if x.size else float("nan")


def score(
    predictions: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    groups: Sequence[str] | np.ndarray | None = None,
    resamples: int = 1000,
    seed: int = 0,
    lowest: ArrayLike = 0.0,
    crossed: Sequence[str] | np.ndarray | None = None,
) -> Scores:
    """All scores of one split.

    predictions, labels: (N, K), NaN = not labeled; names: the K dimensions; groups: the group (such as the subject) of
    each row, which the bootstrap draws as a whole; None makes each row its own group; resamples: bootstrap samples for
    the intervals; lowest: (K,), the lowest value of each range; a label above it counts as above zero; crossed: the
    group of a second kind of each row, for intervals that respect both.
    ValueError if the shapes do not match.
    """
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if predictions.shape != labels.shape or predictions.ndim != 2 or predictions.shape[1] != len(names):
        raise ValueError(f"predictions {predictions.shape}, labels {labels.shape} and {len(names)} names do not match")
    group_ids = np.asarray(groups if groups is not None else np.arange(len(labels)))  # (N,)
    nonzero = (labels > np.asarray(lowest, dtype=np.float64)).any(axis=1)  # (N,), NaN is above nothing
    return Scores(
        n=len(labels),
        groups=len(np.unique(group_ids)),
        pcc=_correlation(predictions, labels, names, group_ids, resamples, seed),
        pcc_nonzero=_correlation(predictions[nonzero], labels[nonzero], names, group_ids[nonzero], resamples, seed),
        ccc=DimensionScores.from_values(_per_dimension(ccc, predictions, labels, names)),
        mae=DimensionScores.from_values(_per_dimension(mae, predictions, labels, names)),
        constant=_constant_dimensions(predictions, labels, names),
        constant_labels=_constant_dimensions(labels, labels, names),
        crossed=None if crossed is None else _crossed(predictions, labels, names, group_ids, crossed, resamples, seed),
    )


def scorable(labels: np.ndarray) -> list[int]:
    """The dimensions of labels (N, K) that allow a correlation."""
    return [k for k in range(labels.shape[1]) if not why_no_pcc(labels[:, k])]


def interval(draws: np.ndarray) -> list[float] | None:
    """The 95 % percentile interval [low, high] (Efron and Tibshirani 1993, chapter 13) of bootstrap draws (R,); NaN
    draws are left out. None if no draw remains."""
    draws = draws[~np.isnan(draws)]
    return [float(value) for value in np.percentile(draws, [2.5, 97.5])] if draws.size else None


def mean_over_dimensions(draws: np.ndarray) -> np.ndarray:
    """(R, K) -> (R,): the mean of the entries that are not NaN; NaN for a row of NaN."""
    known = ~np.isnan(draws)
    count = known.sum(axis=1)
    return np.where(count > 0, np.where(known, draws, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan)


def bootstrap_pcc(
    predictions: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    resamples: int,
    seed: int,
    crossed: np.ndarray | None = None,
) -> np.ndarray:
    """PCC of `resamples` cluster-bootstrap samples (Field and Welsh 2007, JRSS B 69, 369-390): float64 (resamples, K).

    predictions, labels: (N, K), NaN = not labeled; groups: (N,). With G groups, each sample draws G of them with
    replacement and takes all rows of each drawn group, because rows of one subject are not independent. PCC follows
    from six sums per group and dimension, so that all samples are one matrix product:

        PCC = (Sxy - Sx Sy / n) / sqrt((Sxx - Sx^2 / n) (Syy - Sy^2 / n))

    Constant predictions (`is_constant`) count as 0. A sample where the labels of a dimension happen not to vary (a rare
    dimension, few groups), or with fewer than MIN_ROWS of them, says nothing about the dimension and is NaN. A single
    group is the same in every sample and says nothing about others: a dimension with labels in only one group is NaN,
    and with one group there are no samples: (0, K).

    crossed: (N,), a second kind of groups. Rows of such a group are not independent either, so both kinds are drawn
    independently, and a row's weight is the product of the counts of its two groups: the pigeonhole bootstrap (Owen
    2007, Ann. Appl. Stat. 1, 386-411; Owen and Eckles 2012, Ann. Appl. Stat. 6, 895-927), which slightly overstates the
    variance rather than understating it.
    """
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    names, group = np.unique(groups, return_inverse=True)
    if resamples == 0 or len(names) < 2:
        return np.zeros((0, labels.shape[1]))
    drawn = _draw(len(names), resamples, np.random.default_rng(seed))  # (R, G)
    if crossed is None:
        return weighted_pcc(predictions, labels, group, drawn)
    others, other = np.unique(crossed, return_inverse=True)
    if len(others) < 2:
        return np.zeros((0, labels.shape[1]))
    drawn_others = _draw(len(others), resamples, np.random.default_rng([seed, 1]))  # (R, G')
    cells, cell = np.unique(np.stack([group, other]), axis=1, return_inverse=True)  # (2, C), (N,)
    block = max(1, MAX_WEIGHTS // cells.shape[1])
    draws = [np.zeros((0, labels.shape[1]))]
    for start in range(0, resamples, block):
        rows = slice(start, start + block)
        weights = drawn[rows][:, cells[0]] * drawn_others[rows][:, cells[1]]  # (r, C)
        draws.append(weighted_pcc(predictions, labels, cell.reshape(-1), weights))
    return np.concatenate(draws)


def _draw(count: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each of `count` groups is drawn in each sample: int (R, count)."""
    return rng.multinomial(count, np.full(count, 1 / count), size=resamples)


def weighted_pcc(predictions: np.ndarray, labels: np.ndarray, group: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """PCC of samples that contain row n drawn[r, group[n]] times: float64 (R, K), NaN where undefined.

    predictions, labels: float64 (N, K), NaN = not labeled; group: int (N,) below G; drawn: int (R, G).
    """
    known = ~np.isnan(labels)  # (N, K)
    count = np.maximum(known.sum(axis=0), 1)
    x, y = np.where(known, predictions, 0.0), np.where(known, labels, 0.0)
    x = np.where(known, x - x.sum(axis=0) / count, 0.0)  # centered, so that the sums do not lose digits
    y = np.where(known, y - y.sum(axis=0) / count, 0.0)
    sums = np.zeros((drawn.shape[1], 6, labels.shape[1]))  # (G, 6, K)
    np.add.at(sums, group, np.stack([known, x, y, x * x, y * y, x * y], axis=1))
    n, sx, sy, sxx, syy, sxy = np.einsum("rg,gsk->srk", drawn.astype(np.float64), sums, optimize=True)  # (R, K) each
    rows = np.maximum(n, 1)
    vx, vy = sxx - sx * sx / rows, syy - sy * sy / rows
    clear_x, clear_y = vx > AMBIGUOUS * sxx, vy > AMBIGUOUS * syy  # (R, K) each
    clear = clear_x & clear_y
    draws = np.where(clear, (sxy - sx * sy / rows) / np.sqrt(np.where(clear, vx * vy, 1.0)), 0.0)
    for k in range(labels.shape[1]):
        own_x, own_y, times = predictions[known[:, k], k], labels[known[:, k], k], group[known[:, k]]
        if why_no_pcc(own_y):
            draws[:, k] = np.nan
            continue
        doubtful = ~clear_y[:, k] | _near_rounding(own_y, vy[:, k], n[:, k]) | (n[:, k] < MIN_ROWS)  # (R,)
        if is_constant(own_x):
            draws[:, k] = 0.0
        else:
            doubtful |= ~clear_x[:, k] | _near_rounding(own_x, vx[:, k], n[:, k])
        for r in np.flatnonzero(doubtful):
            draws[r, k] = pcc(np.repeat(own_x, drawn[r, times]), np.repeat(own_y, drawn[r, times]))
    of_one_group = (sums[:, 0] > 0).sum(axis=0) < 2  # (K,)
    return np.where(of_one_group, np.nan, draws)


def _near_rounding(values: np.ndarray, squares: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Which samples of values (N,) may be constant: samples of `count` (R,) rows with a sum of squared deviations (R,)
    within rounding error."""
    return squares <= count * (2 * CONSTANT_UNITS * _last_place(values)) ** 2


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1 of values (N,), ties sharing their mean rank: float64 (N,). NaN ranks last."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)  # (N,), (U,)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def roc_auc(scores: np.ndarray, positive: np.ndarray, strata: np.ndarray | None = None) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative, ties counting half (the
    Mann-Whitney statistic; Hanley and McNeil 1982, Radiology 143, 29-36). NaN if there is no such pair.

    scores (N,) float; positive (N,) bool; strata (N,): only pairs within one stratum are compared.
    """
    scores, positive = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    strata = np.zeros(len(scores)) if strata is None else np.asarray(strata)
    wins, pairs = 0.0, 0
    for stratum in np.unique(strata):
        inside = strata == stratum
        n, m = int(positive[inside].sum()), int((~positive[inside]).sum())
        if n and m:
            wins += average_ranks(scores[inside])[positive[inside]].sum() - n * (n + 1) / 2
            pairs += n * m
    return float(wins / pairs) if pairs else float("nan")


def recall_at(similarity: np.ndarray, row_ids: Sequence[Any], column_ids: Sequence[Any], k: int) -> float:
    """The fraction of rows with a column of the same id among their k most similar columns.

    similarity (N, M), row_ids N, column_ids M. Equal ids (equal texts, for example) all count as hits. Ties count
    against the model: a wrong column as similar as the best correct one ranks before it. Rows without a correct column
    are left out; a row of NaN is a miss. 0 if no row has a correct column.
    """
    similarity = np.asarray(similarity)
    codes = {value: code for code, value in enumerate(dict.fromkeys([*row_ids, *column_ids]))}
    rows, columns = np.array([codes[i] for i in row_ids]), np.array([codes[i] for i in column_ids])
    hits = possible = 0
    for start in range(0, len(rows), 1024):  # in blocks: the comparisons are as large as the matrix
        block = similarity[start : start + 1024]
        right = rows[start : start + 1024, None] == columns[None]  # (n, M)
        best = np.where(right & ~np.isnan(block), block, -np.inf).max(axis=1, keepdims=True, initial=-np.inf)  # (n, 1)
        rank = (~right & ~(block < best)).sum(axis=1)  # (n,) wrong columns before the best right one
        findable = right.any(axis=1) & (best[:, 0] > -np.inf)
        hits += int(((rank < k) & findable).sum())
        possible += int(right.any(axis=1).sum())
    return hits / possible if possible else 0.0


def _labeled_rows(predictions: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"predictions {x.shape} and labels {y.shape} differ in shape")
    known = ~np.isnan(y)
    return x[known], y[known]


def _per_dimension(
    measure: Callable[[np.ndarray, np.ndarray], float],
    predictions: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
) -> dict[str, float]:
    return {name: measure(predictions[:, k], labels[:, k]) for k, name in enumerate(names)}


def _correlation(
    predictions: np.ndarray, labels: np.ndarray, names: Sequence[str], groups: np.ndarray, resamples: int, seed: int
) -> CorrelationScores:
    point = DimensionScores.from_values(_per_dimension(pcc, predictions, labels, names))
    known = scorable(labels)
    draws = bootstrap_pcc(predictions[:, known], labels[:, known], groups, resamples, seed)  # (R, K')
    intervals: dict[str, list[float] | None] = dict.fromkeys(names)
    intervals |= {names[k]: interval(column) for k, column in zip(known, draws.T, strict=True)}
    overall = interval(mean_over_dimensions(draws))
    return CorrelationScores(point.mean, point.per_dimension, overall, intervals, len(labels))


def _crossed(
    predictions: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    groups: np.ndarray,
    crossed: Sequence[str] | np.ndarray,
    resamples: int,
    seed: int,
) -> CrossedIntervals:
    known, others = scorable(labels), np.asarray(crossed)
    draws = bootstrap_pcc(predictions[:, known], labels[:, known], groups, resamples, seed, others)  # (R, K')
    each: dict[str, list[float] | None] = dict.fromkeys(names)
    each |= {names[k]: interval(column) for k, column in zip(known, draws.T, strict=True)}
    return CrossedIntervals(len(np.unique(others)), interval(mean_over_dimensions(draws)), each)


def _constant_dimensions(values: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> list[str]:
    known = ~np.isnan(labels)  # (N, K)
    return [name for k, name in enumerate(names) if known[:, k].any() and is_constant(values[known[:, k], k])]


def _mean(values: dict[str, float]) -> float | None:
    known = [value for value in values.values() if not np.isnan(value)]
    return float(np.mean(known)) if known else None
