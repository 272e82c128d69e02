"""Ways to combine the predictions of several systems on the same clips.

Weights are never learned from the clips that they are scored on, nor from training clips of a member: its predictions
for these look better than they are, and the weights would favor it.
"""

import numpy as np

from shared.dataset.splits import assign_folds
from shared.errors import UserError
from shared.metrics import pcc, scorable
from shared.text import counted
from stage2_fusion.evaluation.results import Evaluation
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.evaluation.stacks import Learner, Stack, WeightedSum
from stage2_fusion.evaluation.unknown_training import GO_ON

STRENGTHS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
"""Strengths of the shrinkage towards the average to try, in units of the members' variance."""
FOLDS = 5
"""Folds of the groups: four determine the weights for the fifth."""
CROSS_FITTED = "the other groups"
"""Entry of `made_from` for an ensemble with weights for each fold learned on the other folds."""

NOT_COMPARED = (
    "it is not known whether clips that decide the weights are also scored: their evaluations name no common clip "
    "dataset, and hold no fingerprints of their clips; evaluate again with this version"
)


def average_ranks(stacked: np.ndarray) -> np.ndarray:
    """Mean rank over the members: stacked (N, K, M) -> (N, K) in (0, 1)."""
    return np.mean([rank_fractions(stacked[..., m]) for m in range(stacked.shape[2])], axis=0)


def rank_fractions(values: np.ndarray) -> np.ndarray:
    """(N, K) -> the fraction of the N clips that each value exceeds, ties counting half: in (0, 1)."""
    from scipy.stats import rankdata

    return (rankdata(values, axis=0) - 0.5) / len(values)


def stack_predictions(members: list[Evaluation]) -> np.ndarray:
    """Predictions of M members, as fractions of their range: float64 (N, K, M). UserError for NaN."""
    for member in members:
        if wrong := np.flatnonzero(~np.isfinite(member.predictions).all(axis=1)).tolist():
            clips = f"{counted(len(wrong), 'clip', 'has', 'have')} no prediction, such as {member.ids[wrong[0]]}"
            raise UserError(f"{member.path}: {clips}; evaluate again")
    return np.stack([member.scale.fractions(member.predictions) for member in members], axis=2)


def label_fractions(evaluation: Evaluation) -> np.ndarray:
    """The labels as fractions of their range: float64 (N, K), NaN = not labeled."""
    return evaluation.scale.fractions(evaluation.labels)


def ridge_weights(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights w (M,) and offset b of one dimension, by ridge regression towards the average:

        minimize  |y - b - x w|^2 + strength n v |w - 1/M|^2

    x (n, M): predictions of the members, with mean variance v; y (n,): labels, NaN = not labeled. Large strengths give
    the average, and so do rows without a label or members without variance.
    """
    known = ~np.isnan(y)
    uniform = np.full(x.shape[1], 1 / x.shape[1])  # (M,)
    if not known.any():
        return uniform, 0.0
    x, y = x[known], y[known]
    centered, target = x - x.mean(axis=0), y - y.mean()
    pull = strength * len(x) * centered.var(axis=0).mean()
    if pull <= 0:
        return uniform, float(y.mean() - x.mean(axis=0) @ uniform)
    gram = centered.T @ centered + pull * np.eye(x.shape[1])  # (M, M)
    weights = uniform + np.linalg.solve(gram, centered.T @ (target - centered @ uniform))
    return weights, float(y.mean() - x.mean(axis=0) @ weights)


def fit_weights(x: np.ndarray, y: np.ndarray, groups: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, M) and offsets (K,) for predictions x (N, K, M) of labels y (N, K). The strength has the best mean
    PCC in cross-validation over whole groups. UserError when there is only one group, or no dimension with labels that
    allow a PCC."""
    if not scorable(y):
        raise UserError(
            "the clips that decide the weights have too few labels, or all equal ones; take --method average"
        )
    folds = group_folds(groups)

    def cross_validated_pcc(strength: float) -> float:
        held_out = np.zeros(y.shape)  # (N, K)
        for fold in np.unique(folds):
            rows = folds == fold
            held_out[rows] = apply_weights(x[rows], *_fit_dimensions(x[~rows], y[~rows], strength))
        return float(np.nanmean([pcc(held_out[:, k], y[:, k]) for k in range(y.shape[1])]))

    return _fit_dimensions(x, y, max(STRENGTHS, key=cross_validated_pcc))


def apply_weights(x: np.ndarray, weights: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """x (N, K, M), weights (K, M), offsets (K,) -> predictions (N, K) in [0, 1]."""
    return np.clip(np.einsum("nkm,km->nk", x, weights) + offsets, 0, 1)


def learn_ridge(stack: Stack, labels: np.ndarray, groups: list[str]) -> WeightedSum:
    """Weights by ridge regression, as in `fit_weights`."""
    return WeightedSum(*fit_weights(stack.predictions, labels, groups))


def cross_fit(stack: Stack, y: np.ndarray, groups: list[str], learn: Learner) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, K), with each fold of the groups combined as learned from the other folds, and the mean weights
    (K, M). y: labels (N, K), fractions."""
    names = np.array(groups, dtype=object)
    folds = group_folds(groups)
    predictions, weights_of_folds = np.zeros(y.shape), []
    for fold in np.unique(folds):
        rows = folds == fold
        combine = learn(stack.rows(~rows), y[~rows], list(names[~rows]))
        predictions[rows] = combine(stack.rows(rows))
        weights_of_folds.append(combine.weights)
    return predictions, np.mean(weights_of_folds, axis=0)


def group_folds(groups: list[str]) -> np.ndarray:
    """The fold of each row, int (N,), whole groups at a time. UserError when there is only one group."""
    if len(set(groups)) < 2:
        raise UserError(
            "too few groups: some are needed to learn weights, others to choose their strength, others to score"
        )
    fold_of = assign_folds({str(row): group for row, group in enumerate(groups)}, min(FOLDS, len(set(groups))), 0)
    return np.array([fold_of[str(row)] for row in range(len(groups))])


def check_same_systems(members: list[Evaluation], fit: list[Evaluation]) -> None:
    """UserError when the evaluations for learning weights are not of the members' systems, in the same order."""
    order = "give --fit in the order of the members"
    for member, other in zip(members, fit, strict=True):
        digests, other_digests = _model_digests(member), _model_digests(other)
        # Merged folds come from other models than the final one, so they only match merged folds.
        comparable = digests and other_digests and len(digests) == len(other_digests)
        if comparable and digests != other_digests:
            raise UserError(f"{other.path}: not of the model of {member.path}; {order}")
        if member.info.model != other.info.model:
            raise UserError(f"{other.path}: of another model than {member.path}; {order}")
        if member.info.configuration != other.info.configuration:
            raise UserError(f"{other.path}: of another configuration than {member.path}; {order}")
        seeds = (member.info.training_seed, other.info.training_seed)
        if all(isinstance(seed, int) for seed in seeds) and seeds[0] != seeds[1]:  # merged folds may have several
            raise UserError(f"{other.path}: of another seed than {member.path}; {order}")


def check_unseen(evaluations: list[Evaluation], allow_unknown: bool = False) -> None:
    """UserError when a system was trained on the clips for learning its weight, or when that is unknown and not
    allowed."""
    for evaluation in evaluations:
        info, total = evaluation.info, len(evaluation.ids)
        unknown = info.unknown_training or info.seen is None or info.seen_by_encoders is None
        if unknown and not allow_unknown:
            raise UserError(
                f"{evaluation.path}: it is not known whether it was trained on these clips, so weights cannot be "
                "learned from it; take --method average, or continue with --allow_unknown_training true"
            )
        if info.seen and info.seen.in_training:
            raise UserError(
                f"{evaluation.path}: its model was trained on {info.seen.in_training} of these "
                f"{counted(total, 'clip')}; "
                "learn weights from valid, or from merged folds (`emit split`, `emit merge-folds`)"
            )
        if info.seen_by_encoders:
            raise UserError(
                f"{evaluation.path}: its encoders were aligned on {info.seen_by_encoders} of these "
                f"{counted(total, 'clip')}, and "
                "their labels may have been among the words; align on other clips"
            )


def check_disjoint(fit: list[Evaluation], scored: list[Evaluation], allow_unknown: bool = False) -> str:
    """UserError when clips for learning weights are also to be scored, or when that is unknown and not allowed. Returns
    why it is unknown, "" if it is known. fit, scored: evaluations of the same systems, each on the same clips."""
    known = False  # if it is known for one system, it is known for all
    for own, other in zip(fit, scored, strict=True):
        shared = shared_clips(ClipSet.scored(own), ClipSet.scored(other))
        known |= shared is not None
        if shared:
            name, there = min(shared.items())
            renamed = f" ({there!r} there)" if there != name else ""
            raise UserError(
                f"{own.path}: {len(shared)} of its clips are also to be scored, such as {name!r}{renamed}; weights are "
                "learned from other clips, or leave --fit out"
            )
    if not known and not allow_unknown:
        raise UserError(f"{fit[0].path}: {NOT_COMPARED}; {GO_ON}")
    return "" if known else NOT_COMPARED


def _fit_dimensions(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    fits = [ridge_weights(x[:, k], y[:, k], strength) for k in range(y.shape[1])]
    return np.stack([weights for weights, _ in fits]), np.array([offset for _, offset in fits])


def _model_digests(evaluation: Evaluation) -> list[str] | None:
    """Digests of the models behind an evaluation, one per fold; None if one is unknown."""
    sources = [part.made_from for part in evaluation.info.parts] or [evaluation.info.made_from]
    digests = [source["model_digest"] for source in sources if source.get("model_digest")]
    return digests if len(digests) == len(sources) else None
