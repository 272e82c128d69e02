"""The cheap baselines that a report compares with the model."""

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.metrics import score
from shared.ridge import PENALTIES, ridge_predict
from stage2_fusion.evaluation.results import Evaluation, EvaluationInfo, SeenClips, score_predictions
from stage2_fusion.evaluation.ridge_baseline import clip_statistics, fit_ridge, standardize
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.inputs import Inputs

FOLDS = 4
"""Parts of the training clips for choosing the penalty if the validation clips are scored."""


def cheap_baselines(inputs: Inputs) -> list[Evaluation]:
    """The baselines on the clips of the evaluation, best first: evaluations in the runs, and the ridge regression of
    `emit baseline` on the same features. NotFound says why there is none."""
    known = [each for each in inputs.baselines if each.mean_pcc is not None and each is not inputs.evaluation]
    reason = "no baseline: it has no score"
    if not any(each.info.model == "ridge" for each in known):
        try:
            if "ridge" not in inputs.computed:
                inputs.computed["ridge"] = _ridge(inputs)
            known += [inputs.computed["ridge"]] if inputs.computed["ridge"].mean_pcc is not None else []
        except NotFound as why:
            reason = str(why)
    if not known:
        raise NotFound(reason)
    return sorted(known, key=lambda each: -(each.mean_pcc or 0.0))


def _ridge(inputs: Inputs) -> Evaluation:
    evaluation = inputs.evaluation
    try:
        data = inputs.features.select(evaluation.names)
    except (NotFound, UserError, ValueError) as reason:
        raise NotFound(f"no baseline: {reason}") from None
    clean = [sample for sample in data.samples if sample.view == 0]
    scored, own = ClipSet.scored(evaluation), ClipSet.encoded(clean, data.info)
    found, left_out = shared_clips(scored, own), shared_clips(own, scored)
    if found is None or left_out is None:
        raise NotFound(
            f"no baseline: it is not known whether the scored clips are in {inputs.features_path}, and which of them; "
            "evaluate again with this version"
        )
    parts = [
        [s for s in clean if s.split == split and s.id not in left_out and not np.isnan(s.labels).all()]
        for split in ("train", "valid")
    ]
    missing = [name for name in evaluation.ids if name not in found]
    if missing or not parts[0]:
        lacking = "clips that were scored" if missing else "labeled training clips that were not scored"
        raise NotFound(f"no baseline: {inputs.features_path} lacks {lacking}")
    sample_of = {sample.id: sample for sample in clean}
    parts.append([sample_of[found[name]] for name in evaluation.ids])
    kept = [part for part in parts if part]  # without validation clips if these are scored
    labels = [np.stack([sample.labels for sample in part]) for part in kept]  # (N, K) each
    statistics = standardize([clip_statistics(part, list(MODALITIES)) for part in kept])
    if len(kept) == 3:
        predictions = fit_ridge(statistics[0], labels[0], statistics[1], labels[1], statistics[2]).predictions
    else:
        groups = [sample.groups.get(evaluation.info.group or "") or sample.id for sample in parts[0]]
        predictions = fit_by_folds(statistics[0], labels[0], groups, statistics[1])
    info = EvaluationInfo(
        split=evaluation.info.split,
        group=evaluation.info.group,
        crossed_group=evaluation.info.crossed_group,
        model="ridge",
        configuration={"modalities": list(MODALITIES)},
        made_from={"features": data.info.digest},
        data=data.info.data.digest,
        seen=SeenClips(0, 0),  # scored clips are left out above
        seen_by_encoders=evaluation.info.seen_by_encoders,
        unknown_training=evaluation.info.unknown_training,
        label_ranges=evaluation.info.label_ranges,
    )
    return score_predictions(
        info,
        evaluation.names,
        evaluation.ids,
        evaluation.groups,
        data.info.scale.values(predictions),
        evaluation.labels,
        evaluation.resamples,
        evaluation.bootstrap_seed,
        evaluation.crossed,
        fingerprints=np.stack([sample.fingerprints for sample in parts[-1]]),  # (N, 3)
    )


def fit_by_folds(train: np.ndarray, labels: np.ndarray, groups: list[str], scored: np.ndarray) -> np.ndarray:
    """Predict scored (N, F) by ridge regression on train (n, F), its labels (n, K) and groups: float64 (N, K) in [0,
    1]. The penalty is the best in cross-validation over FOLDS parts of the groups."""
    targets = labels.astype(np.float64)
    fold_of = {group: place % FOLDS for place, group in enumerate(dict.fromkeys(groups))}
    folds = np.array([fold_of[group] for group in groups])  # (n,)
    names = [str(k) for k in range(targets.shape[1])]

    def mean_pcc(penalty: float) -> float:
        predictions = np.zeros_like(targets)  # (n, K)
        for fold in set(fold_of.values()):
            out = folds == fold
            predictions[out] = ridge_predict(train[~out], targets[~out], train[out], penalty)
        mean = score(np.clip(predictions, 0, 1), labels, names, resamples=0).pcc.mean
        return float("-inf") if mean is None else mean

    penalty = max(PENALTIES, key=mean_pcc) if len(fold_of) > 1 else PENALTIES[len(PENALTIES) // 2]
    return np.clip(ridge_predict(train, targets, scored, penalty), 0, 1)
