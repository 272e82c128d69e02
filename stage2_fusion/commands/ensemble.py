"""`emit ensemble`: several systems as one.

Weights are never learned from the clips they are quoted on, nor from clips a member was trained on: there its
predictions look better than they are, and the weights would follow that.
"""

from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from stage2_fusion.commands.evidence_config import EnsembleConfig
from stage2_fusion.evaluation.results import Evaluation

STRENGTHS = (1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
"""Pulls towards the average that are tried, in units of the members' variance."""
FOLDS = 5
"""Parts of the groups: four choose weights for the fifth."""
LEARNED_HERE = "the other groups"
"""Of weights for one part that the others chose, what `made_from` says they were learned from."""


def main(argv: list[str] | None = None) -> int:
    from stage2_fusion.commands.evaluate import table

    config = configuration.parse(
        EnsembleConfig,
        argv,
        prog="emit ensemble",
        example="emit ensemble runs/a/test.json runs/b/test.json --method ridge --fit [runs/a/valid.json,"
        "runs/b/valid.json] --out runs/ensemble.json",
        positional=("members",),
    )
    metrics = ensemble(config)
    print(table(metrics))
    if metrics["member_weights"]:
        for name, weights in metrics["member_weights"].items():
            print(f"weights for {name}: {', '.join(f'{weight:.2f}' for weight in weights)}")
    return 0


def ensemble(config: EnsembleConfig) -> dict:
    """Combine, score, write the evaluation; returns the metrics. UserError when the members are not of the same clips,
    or weights would be learned from clips that give too rosy a picture."""
    from shared.files import digest
    from stage2_fusion.evaluation import results as evaluation

    members, fit = _alike(config.members), _alike(config.fit) if config.fit else []
    for now, then in zip(members, fit, strict=bool(fit)) if fit else ():
        trained = [_trained(part.metrics) for part in (now, then)]
        told = None not in trained and len(trained[0]) == len(trained[1])  # pooled folds are other models by nature
        if told and trained[0] != trained[1]:
            raise UserError(f"{then.path}: not of the model of {now.path}; give --fit in the order of the members")
        for key in ("model", "configuration"):
            if now.metrics.get(key) != then.metrics.get(key):
                raise UserError(
                    f"{then.path}: of another {key} than {now.path}; give --fit in the order of the members"
                )
        seeds = [part.metrics["seeds"]["training"] for part in (now, then)]
        if all(isinstance(seed, int) for seed in seeds) and seeds[0] != seeds[1]:  # pooled folds may have several
            raise UserError(f"{then.path}: of another seed than {now.path}; give --fit in the order of the members")
    first, weights, learned = members[0], None, {}
    stacked = np.stack([member.predictions for member in members], axis=2)  # (N, K, M)
    if config.method == "average":
        predictions = stacked.mean(axis=2)  # (N, K)
    elif config.method == "rank":
        predictions = np.mean([ranks(member.predictions) for member in members], axis=0)  # (N, K)
    elif fit:
        _unseen(fit)
        _apart(fit[0], first)
        predictions, weights = _weigh(fit, stacked)
        shared_groups = len(set(fit[0].groups) & set(first.groups))
        learned = {"fit": [str(path) for path in config.fit], "clips": len(fit[0].ids), "shared_groups": shared_groups}
    else:
        _unseen(members)
        predictions, weights = _cross_weigh(members)
        learned = {"fit": LEARNED_HERE, "folds": FOLDS}
    about = {
        "split": first.metrics["split"],
        "group": first.metrics["clips"]["group"],
        "model": "ensemble",
        "configuration": {"method": config.method},
        **evaluation.add_seen([member.metrics for member in members], max),
        "made_from": {"members": [str(member.path) for member in members], "weights": learned or None},
        "members": [
            {"model": m.metrics["model"], "pcc": m.metrics["pcc"]["mean"], "digest": digest(m.metrics)} for m in members
        ],
        "member_weights": None if weights is None else dict(zip(first.names, weights.tolist(), strict=True)),
        **{key: first.metrics[key] for key in ("ceiling", "leak_probe") if key in first.metrics},
    }
    combined = evaluation.evaluation(
        first.names, first.ids, first.groups, predictions, first.labels, about, config.bootstrap, config.seed
    )
    evaluation.write(config.out, combined)
    return combined.metrics


def ranks(values: np.ndarray) -> np.ndarray:
    """(N, K) -> the share of clips of these N that each value lies above, ties counting half: in (0, 1)."""
    from scipy.stats import rankdata

    return (rankdata(values, axis=0) - 0.5) / len(values)


def ridge_weights(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, float]:
    """Weights (M,) and offset that minimise |y - offset - x weights|^2 + strength n v |weights - 1 / M|^2 over the rows
    whose label is known: x (n, M) of mean variance v, y (n,). They tend to the average for large strengths; without a
    label, or without variance, they are it."""
    known = ~np.isnan(y)
    even = np.full(x.shape[1], 1 / x.shape[1])  # (M,)
    if not known.any():
        return even, 0.0
    x, y = x[known], y[known]
    centred, target = x - x.mean(axis=0), y - y.mean()
    pull = strength * len(x) * centred.var(axis=0).mean()
    if pull <= 0:
        return even, float(y.mean() - x.mean(axis=0) @ even)
    gram = centred.T @ centred + pull * np.eye(x.shape[1])  # (M, M)
    weights = even + np.linalg.solve(gram, centred.T @ (target - centred @ even))
    return weights, float(y.mean() - x.mean(axis=0) @ weights)


def fit_weights(x: np.ndarray, y: np.ndarray, groups: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, M) and offsets (K,) for predictions x (N, K, M) of labels y (N, K); the strength is the one whose
    weights predict the groups they were not fitted on best."""
    from shared.metrics import pcc

    parts = _parts(groups)

    def score(strength: float) -> float:
        held = np.zeros(y.shape)  # (N, K)
        for part in np.unique(parts):
            out = parts == part
            held[out] = apply(x[out], *_fit(x[~out], y[~out], strength))
        return float(np.nanmean([pcc(held[:, k], y[:, k]) for k in range(y.shape[1])]))

    return _fit(x, y, max(STRENGTHS, key=score))


def apply(x: np.ndarray, weights: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Predictions (N, K) in [0, 1] of members' predictions x (N, K, M)."""
    return np.clip(np.einsum("nkm,km->nk", x, weights) + offsets, 0, 1)


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    found = [ridge_weights(x[:, k], y[:, k], strength) for k in range(y.shape[1])]
    return np.stack([weights for weights, _ in found]), np.array([offset for _, offset in found])


def _weigh(fit: list[Evaluation], stacked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, K) and weights (K, M), learned from `fit`."""
    x = np.stack([member.predictions for member in fit], axis=2)  # (n, K, M)
    weights, offsets = fit_weights(x, fit[0].labels.astype(np.float64), fit[0].groups)
    return apply(stacked, weights, offsets), weights


def _cross_weigh(members: list[Evaluation]) -> tuple[np.ndarray, np.ndarray]:
    """Predictions (N, K), those of each part of the groups by weights learned from the other parts; and the mean
    weights (K, M)."""
    x = np.stack([member.predictions for member in members], axis=2)  # (N, K, M)
    y, groups = members[0].labels.astype(np.float64), np.array(members[0].groups, dtype=object)
    parts, predictions, found = _parts(list(groups)), np.zeros(x.shape[:2]), []
    for part in np.unique(parts):
        out = parts == part
        weights, offsets = fit_weights(x[~out], y[~out], list(groups[~out]))
        predictions[out] = apply(x[out], weights, offsets)
        found.append(weights)
    return predictions, np.mean(found, axis=0)


def _parts(groups: list[str]) -> np.ndarray:
    """The part of each row, int (N,), whole groups at a time. UserError when there is but one group."""
    from shared.dataset.splits import assign_folds

    if len(set(groups)) < 2:
        raise UserError("too few groups: weights are learned on some, their strength on others, and judged on others")
    dealt = assign_folds({str(row): group for row, group in enumerate(groups)}, min(FOLDS, len(set(groups))), 0)
    return np.array([dealt[str(row)] for row in range(len(groups))])


def _alike(paths: list[Path]) -> list[Evaluation]:
    from stage2_fusion.evaluation import results as evaluation

    found = evaluation.read_all(paths)
    for other in found[1:]:
        evaluation.same_clips(found[0], other)
    return found


def _trained(metrics: dict) -> list[str] | None:
    """Digests of the weights behind an evaluation, one a fold; None where it does not say."""
    found = [part["made_from"].get("model_digest") for part in metrics.get("parts", [metrics])]
    return None if None in found else found


def _unseen(fit: list[Evaluation]) -> None:
    """Refuse to learn weights where a member was trained, or where nobody can tell."""
    for member in fit:
        seen = member.metrics.get("seen")
        if seen is None:
            raise UserError(
                f"{member.path}: does not say which clips its model was trained on, so weights cannot be learned from "
                "it; train it with this version, or take --method average"
            )
        if seen["in_training"]:
            raise UserError(
                f"{member.path}: its model was trained on {seen['in_training']} of these {len(member.ids)} clips; "
                "learn weights from valid, or from pooled folds (`emit split`, `emit merge-folds`)"
            )
        if member.metrics.get("seen_by_encoders"):
            raise UserError(
                f"{member.path}: its encoders were aligned on {member.metrics['seen_by_encoders']} of these "
                f"{len(member.ids)} clips, and their labels may have been among the words; align on other clips"
            )


def _apart(fit: Evaluation, scored: Evaluation) -> None:
    both = set(fit.ids) & set(scored.ids)
    if both:
        raise UserError(
            f"{fit.path}: {len(both)} of its clips are also to be scored, such as {min(both)!r}; weights are learned "
            "from other clips, or leave --fit out"
        )


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
